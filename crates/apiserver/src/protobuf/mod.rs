//! Protobuf: the bodies that typed clients send, which no option of theirs turns off, and the
//! means to write the one document that is asked for in it.
//!
//! A body is read into the same JSON that everybody else sends, by a table for each kind
//! (`layout`), so that nothing behind this module knows of protobuf. The answers are JSON: every
//! client that sends protobuf takes it.

mod layout;
mod reader;
mod writer;

pub(crate) use self::writer::Writer;
use crate::{decode::Decoded, status::ApiError};

/// The media type of such a body.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// How every such body begins; an envelope follows that names the kind.
const MAGIC: &[u8] = b"k8s\0";

/// Reads a body; a fault is a 400, a kind that has no table a 415.
pub(crate) fn decode(body: &[u8]) -> Result<Decoded, ApiError> {
    let envelope = body.strip_prefix(MAGIC).and_then(reader::envelope);
    let envelope = envelope.ok_or_else(|| unreadable("it has no readable envelope"))?;
    let (version, kind) = (envelope.version, envelope.kind);
    let layout = layout::of(version, kind).ok_or_else(|| {
        ApiError::unsupported_media_type(&["application/json", "application/yaml"])
    })?;
    let members = reader::object(envelope.raw, layout);
    let mut members = members.ok_or_else(|| unreadable("its content is not of its kind"))?;
    members.insert("apiVersion".into(), version.into());
    members.insert("kind".into(), kind.into());
    Ok(Decoded { value: members.into(), duplicates: Vec::new() })
}

fn unreadable(why: &str) -> ApiError {
    ApiError::bad_request(format!("the object provided is unrecognized: protobuf: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 128 && number < 16);
        [&[number << 3 | 2, length], content].concat()
    }

    fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let names = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        // What contentEncoding and contentType say is empty.
        [MAGIC, &field(1, &names), &field(2, raw), &field(3, b""), &field(4, b"")].concat()
    }

    /// What `kubectl create namespace stage` sends: empty texts and no creationTimestamp included.
    fn namespace() -> Vec<u8> {
        let metadata = [
            field(1, b"stage"),
            field(2, b""),
            field(3, b""),
            vec![7 << 3, 0],
            field(8, b""),
            field(11, &[field(1, b"app"), field(2, b"x")].concat()),
        ];
        let raw = [field(1, &metadata.concat()), field(2, b""), field(3, &field(1, b""))];
        body("v1", "Namespace", &raw.concat())
    }

    #[test]
    fn a_namespace_is_read_as_its_json_would_be() {
        let wanted = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": "stage", "labels": { "app": "x" } }, "spec": {}, "status": {},
        });
        assert_eq!(decode(&namespace()).unwrap().value, wanted);
    }

    #[test]
    fn every_form_of_field_is_read() {
        let time = [&[1 << 3][..], &[0x80, 0xc0, 0xaf, 0xcb, 0x05]].concat();
        let data = field(2, &[field(1, b"key"), field(2, b"\xff\x00\x01\x02")].concat());
        let nothing = field(2, &field(1, b"empty"));
        let metadata = field(1, &[field(1, b"one"), field(8, &time), field(14, b"a/b")].concat());
        let owner = [field(1, b"K"), vec![6 << 3, 0], vec![7 << 3, 1]].concat();
        let owned = field(1, &field(13, &owner));
        let read = |raw: Vec<u8>| decode(&body("v1", "Secret", &raw)).unwrap().value;
        let value = read([metadata, data, nothing, vec![5 << 3, 0]].concat());
        assert_eq!(value["data"], json!({ "key": "/wABAg==", "empty": "" }));
        assert_eq!(value["metadata"]["finalizers"], json!(["a/b"]));
        assert_eq!(value["metadata"]["creationTimestamp"], "2017-07-16T21:52:00Z");
        assert_eq!(value["immutable"], false);
        let about = [field(1, b"K"), field(2, b""), field(7, b"spec"), field(8, b"new")].concat();
        let event = decode(&body("v1", "Event", &field(2, &about))).unwrap().value;
        assert_eq!(event["involvedObject"], json!({ "kind": "K", "fieldPath": "spec" }));
        let owners = &read(owned)["metadata"]["ownerReferences"];
        assert_eq!(
            owners,
            &json!([{ "kind": "K", "controller": false, "blockOwnerDeletion": true }])
        );
    }

    #[test]
    fn what_is_not_known_is_refused_or_passed_over() {
        let code = |bytes: &[u8]| decode(bytes).unwrap_err().code().as_u16();
        assert_eq!(code(b"{}"), 400);
        assert_eq!(code(b"k8s\0\xff"), 400);
        assert_eq!(code(&body("eventing.kyma.cx/v1alpha1", "Subscription", b"")), 415);
        assert_eq!(code(&body("v1", "Namespace", b"\x0a\x05ab")), 400);
        assert_eq!(code(&body("v1", "Namespace", &field(1, &field(1, b"\xff")))), 400);
        let unknown =
            [field(15, b"new"), vec![0x7d, 1, 2, 3, 4], vec![0x79, 1, 2, 3, 4, 5, 6, 7, 8]];
        assert!(decode(&body("v1", "Namespace", &unknown.concat())).is_ok());
    }

    fn any_kind() -> impl Strategy<Value = (&'static str, &'static str)> {
        prop::sample::select(layout::KINDS.iter().map(|(known, _)| *known).collect::<Vec<_>>())
    }

    fn any_field() -> impl Strategy<Value = (u8, u8, Vec<u8>)> {
        (0u8..16, 0u8..8, prop::collection::vec(any::<u8>(), 0..6))
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _read = decode(&bytes);
            let _read = decode(&[MAGIC, &bytes].concat());
        }

        #[test]
        fn any_content_gets_an_answer(
            (version, kind) in any_kind(),
            fields in prop::collection::vec(any_field(), 0..8),
        ) {
            let raw: Vec<u8> = fields
                .into_iter()
                .flat_map(|(number, wire, content)| [vec![number << 3 | wire], content].concat())
                .take(100)
                .collect();
            let _read = decode(&body(version, kind, &raw));
        }

        #[test]
        fn a_damaged_body_gets_an_answer(at in 0usize..70, byte in any::<u8>(), end in 0usize..80) {
            let mut bytes = namespace();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(end);
            let _read = decode(&bytes);
        }
    }
}
