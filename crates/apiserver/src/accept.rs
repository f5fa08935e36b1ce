//! Which form a client wants its answer in.

use crate::status::ApiError;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Accept {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Encoding {
    #[default]
    Json,
    Yaml,
}

impl Encoding {
    /// The `Content-Type` of the answer.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What is made of the objects.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Shape {
    /// The objects as they are.
    #[default]
    Object,
    /// A table for people; the version of its group is kept, because old clients ask for `v1beta1`.
    Table(TableVersion),
    /// Their metadata only.
    Metadata,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TableVersion {
    V1,
    V1Beta1,
}

/// The forms of objects that can be asked for.
const OFFERS: [&str; 5] = [
    "application/json",
    "application/yaml",
    "application/json;as=Table;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
];

impl Accept {
    /// Reads an `Accept` header: the best form that this server has, or 406.
    pub(crate) fn parse(header: Option<&str>) -> Result<Self, ApiError> {
        let header = header.unwrap_or_default();
        if header.trim().is_empty() {
            return Ok(Self::default());
        }
        let wishes = header.split(',').filter_map(wish).collect();
        best(wishes).ok_or_else(|| ApiError::not_acceptable(&OFFERS))
    }
}

/// Which of several media types an `Accept` header prefers; the first of them if it does not care,
/// none if it wants none of them.
pub(crate) fn best_of(header: Option<&str>, offers: &[&str]) -> Option<usize> {
    let header = header.filter(|header| !header.trim().is_empty()).unwrap_or("*/*");
    let wish = |clause: &str| {
        let mut parts = clause.split(';').map(str::trim);
        let name = parts.next()?;
        let is_meant = |offer: &&str| {
            name == "*/*" || name == "application/*" || name.eq_ignore_ascii_case(offer)
        };
        let offer = offers.iter().position(is_meant)?;
        let quality = parts.find_map(|part| part.strip_prefix("q="));
        let quality: f32 = quality.map_or(Ok(1.0), str::parse).ok()?;
        (quality > 0.0).then_some((quality, offer))
    };
    best(header.split(',').filter_map(wish).collect())
}

/// The wish of the highest quality; among equals the first named.
fn best<T>(mut wishes: Vec<(f32, T)>) -> Option<T> {
    // The sort is stable.
    wishes.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    wishes.into_iter().next().map(|(_, wish)| wish)
}

/// One clause of the header, if it can be fulfilled.
fn wish(clause: &str) -> Option<(f32, Accept)> {
    let mut parts = clause.split(';').map(str::trim);
    let encoding = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut quality, mut shape, mut group, mut version) = (1.0, None, None, None);
    for part in parts {
        match part.split_once('=')? {
            ("q", value) => quality = value.parse::<f32>().ok()?,
            ("as", value) => shape = Some(value),
            ("g", value) => group = Some(value),
            ("v", value) => version = Some(value),
            _ => {}
        }
    }
    let shape = match shape {
        None => Shape::Object,
        Some(_) if group != Some("meta.k8s.io") => return None,
        Some("Table") => match version? {
            "v1" => Shape::Table(TableVersion::V1),
            "v1beta1" => Shape::Table(TableVersion::V1Beta1),
            _ => return None,
        },
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if version == Some("v1") => {
            Shape::Metadata
        }
        Some(_) => return None,
    };
    (quality > 0.0).then_some((quality, Accept { encoding, shape }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Option<(Encoding, Shape)> {
        Accept::parse(Some(header)).ok().map(|accept| (accept.encoding, accept.shape))
    }

    #[test]
    fn the_best_form_is_taken() {
        let (json, object) = (Encoding::Json, Shape::Object);
        let table = Shape::Table(TableVersion::V1);
        assert_eq!(parse(""), Some((json, object)));
        assert_eq!(parse("*/*"), Some((json, object)));
        assert_eq!(parse("application/yaml"), Some((Encoding::Yaml, object)));
        assert_eq!(parse("application/json;as=Table;v=v1;g=meta.k8s.io,*/*"), Some((json, table)));
        assert_eq!(
            parse("application/vnd.kubernetes.protobuf,application/json;stream=watch"),
            Some((json, object))
        );
        assert_eq!(
            parse("application/json;q=0.1, application/yaml;q=0.9"),
            Some((Encoding::Yaml, object))
        );
        assert_eq!(
            parse("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Some((json, Shape::Metadata))
        );
        for bad in ["text/html", "application/json;q=0", "application/json;as=Table;v=v9"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
