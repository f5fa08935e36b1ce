//! Get and list: one object, or a page of many that show one moment.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::json;

use super::{Api, Call};
use crate::{
    body::Body,
    limits,
    route::Query,
    selector::Selection,
    status::{ApiError, Cause},
    store::{PageError, PageRequest},
};

const EXPIRED_PAGE: &str = "The provided continue parameter is too old to display a consistent \
    list result. You can start a new list without the continue parameter, or use the continue \
    token in this response to retrieve the remainder of the results. Continuing with the provided \
    token results in an inconsistent list - objects that were created, modified, or deleted \
    between the time the first chunk was returned and now may show up in the list.";

/// The object that the path names.
pub(crate) async fn get(api: &Api, call: &Call) -> Result<Response<Body>, ApiError> {
    if let Some(revision) = revision(&call.query)? {
        wait_until_fresh(api, revision).await?;
    }
    let key = call.key();
    let body = api.store.get(key.clone()).await?;
    let body = body.ok_or_else(|| ApiError::not_found(call.resource(), &key.name))?;
    call.form.object(StatusCode::OK, call.resource(), &body)
}

/// A page of the objects that the path and the query select.
pub(crate) async fn list(api: &Api, call: &Call) -> Result<Response<Body>, ApiError> {
    let (resource, query) = (call.resource(), &call.query);
    let selection =
        Selection::parse(query.text("labelSelector"), query.text("fieldSelector"), resource)?;
    let limit = query.number("limit")?.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut request = PageRequest {
        resource: resource.index,
        namespace: call.target.namespace.clone(),
        after: None,
        revision: None,
        limit,
        bytes: None,
        selection: Arc::new(selection),
    };
    let token = query.text("continue");
    if token.is_empty() {
        request.revision = start(api, query, limit.is_some()).await?;
    } else {
        if revision(query)?.is_some() {
            let text = "specifying resource version is not allowed when using continue";
            return Err(ApiError::bad_request(text));
        }
        let token = Token::read(token)?;
        request.revision = token.revision;
        request.after = Some((token.namespace, token.name));
    }
    let after = request.after.clone();
    let page = api.store.page(request).await.map_err(|error| match (error, after) {
        (PageError::Failed(error), _) => error,
        (PageError::Full, _) => ApiError::too_many(),
        (PageError::Expired, Some((namespace, name))) => {
            let next = Token { revision: None, namespace, name }.write();
            ApiError::expired(EXPIRED_PAGE, Some(next))
        }
        (PageError::Expired, None) => {
            let asked = query.text("resourceVersion");
            ApiError::expired(
                format!("The resourceVersion for the provided list is too old: {asked}"),
                None,
            )
        }
    })?;
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if let Some((namespace, name)) = page.next {
        let next = Token { revision: Some(page.revision), namespace, name };
        metadata["continue"] = next.write().into();
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    call.form.list(resource, page.bodies, metadata)
}

/// The revision that a list without a continue token must show: none means now, which is never
/// older than what was asked for once that is reached.
async fn start(api: &Api, query: &Query, limited: bool) -> Result<Option<u64>, ApiError> {
    let written = query.text("resourceVersion");
    let matching = query.text("resourceVersionMatch");
    let refuse = |cause| Err(ApiError::invalid_options("ListOptions", "meta.k8s.io", vec![cause]));
    let field = "resourceVersionMatch";
    match matching {
        "" => {}
        "Exact" | "NotOlderThan" if written.is_empty() => {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            return refuse(Cause::forbidden(field, why));
        }
        "Exact" if written == "0" => {
            let why = "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
            return refuse(Cause::forbidden(field, why));
        }
        "Exact" | "NotOlderThan" => {}
        other => {
            let known = ["Exact".into(), "NotOlderThan".into(), "".into()];
            return refuse(Cause::not_supported(field, &other.into(), &known));
        }
    }
    let Some(revision) = revision(query)? else { return Ok(None) };
    wait_until_fresh(api, revision).await?;
    // A limited list at a revision without a match has always meant that very revision.
    Ok((matching == "Exact" || (matching.is_empty() && limited)).then_some(revision))
}

/// The revision of the query; none when absent or 0, which both are served from now.
pub(crate) fn revision(query: &Query) -> Result<Option<u64>, ApiError> {
    let text = query.text("resourceVersion");
    if text.is_empty() {
        return Ok(None);
    }
    let revision: u64 = text.parse().map_err(|_| {
        let why = "resourceVersion must be a number, as an earlier answer gave it";
        ApiError::bad_request(format!("invalid resource version {text:?}: {why}"))
    })?;
    Ok((revision > 0).then_some(revision))
}

/// Waits for a revision that somebody has already seen; one that never comes is 504.
pub(super) async fn wait_until_fresh(api: &Api, revision: u64) -> Result<(), ApiError> {
    let mut published = api.store.published();
    let reached = published.wait_for(|published| *published >= revision);
    match tokio::time::timeout(limits::FRESH_WAIT, reached).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(ApiError::closing()),
        Err(_) => {
            let present = *api.store.published().borrow();
            Err(ApiError::too_large_revision(revision, present))
        }
    }
}

/// Where a list goes on: opaque to clients.
#[derive(Debug, Eq, PartialEq)]
struct Token {
    /// The moment that the list shows; none: it has expired, go on with now.
    revision: Option<u64>,
    namespace: String,
    name: String,
}

impl Token {
    fn write(&self) -> String {
        let Self { revision, namespace, name } = self;
        let text = format!("{}/{namespace}/{name}", revision.unwrap_or_default());
        text.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    fn read(token: &str) -> Result<Self, ApiError> {
        let parse = || {
            let bytes: Option<Vec<u8>> = token
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                .collect();
            let text = String::from_utf8(bytes?).ok()?;
            let mut parts = text.splitn(3, '/');
            let revision: u64 = parts.next()?.parse().ok()?;
            let (namespace, name) = (parts.next()?.to_owned(), parts.next()?.to_owned());
            Some(Self { revision: (revision > 0).then_some(revision), namespace, name })
        };
        parse().ok_or_else(|| ApiError::bad_request("continue key is not valid"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_come_back() {
        for revision in [None, Some(7)] {
            let token = Token { revision, namespace: "a".into(), name: "b.c".into() };
            assert_eq!(Token::read(&token.write()).unwrap(), token);
        }
    }

    proptest! {
        #[test]
        fn reading_a_token_never_panics(token in ".{0,40}") {
            let _read = Token::read(&token);
        }
    }
}
