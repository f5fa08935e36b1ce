//! `/healthz`, `/livez` and `/readyz`, as Kubernetes' own servers answer them: `ok`, or what is
//! not; `?verbose` names every check, and `/readyz/NAME` asks for one of them.

use bytes::Bytes;
use http::{Response, StatusCode, Uri};
use http_body_util::Full;

use super::{not_found, text};
use crate::readiness::Readiness;

/// The one check of a process that lives: it answers. What is wrong beside that, no restart mends.
const ALIVE: (&str, bool) = ("ping", true);

/// Answers what asks how the process is: `/healthz` and `/livez` whether it lives, `/readyz`
/// whether it is ready. `None` for every other path.
pub fn probe(uri: &Uri, readiness: &Readiness) -> Option<Response<Full<Bytes>>> {
    let path = uri.path().strip_prefix('/')?;
    let (probe, check) = path.split_once('/').map_or((path, None), |(p, c)| (p, Some(c)));
    let mut checks = match probe {
        "healthz" | "livez" => vec![ALIVE],
        "readyz" => readiness.state(),
        _ => return None,
    };
    if let Some(check) = check {
        checks.retain(|(name, _)| *name == check);
        if checks.is_empty() {
            return Some(not_found());
        }
    }
    let is_well = checks.iter().all(|(_, is_well)| *is_well);
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let is_verbose = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .any(|asked| asked.split_once('=').map_or(asked, |(name, _)| name) == "verbose");
    Some(match is_well && !is_verbose {
        true => text(status, "ok\n".to_owned()),
        false => text(status, report(probe, &checks)),
    })
}

/// Every check on a line: `[+]name ok` or `[-]name not ready`; and what follows from them.
fn report(probe: &str, checks: &[(&str, bool)]) -> String {
    let line = |(name, is_well): &(&str, bool)| match is_well {
        true => format!("[+]{name} ok\n"),
        false => format!("[-]{name} not ready\n"),
    };
    let all: String = checks.iter().map(line).collect();
    let end = if checks.iter().all(|(_, is_well)| *is_well) { "passed" } else { "failed" };
    format!("{all}{probe} check {end}\n")
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    fn answer(readiness: &Readiness, asked: &'static str) -> Option<(u16, String)> {
        let answer = probe(&Uri::from_static(asked), readiness)?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        Some((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    #[test]
    fn each_check_is_named_and_can_be_asked_for() {
        let readiness = Readiness::default();
        readiness.latch("ports").open();
        let latch = readiness.latch("catalog");
        let not_yet = "[+]ports ok\n[-]catalog not ready\nreadyz check failed\n";
        for (asked, status, body) in [
            ("/readyz", 503, not_yet),
            ("/readyz?verbose", 503, not_yet),
            ("/readyz/ports", 200, "ok\n"),
            ("/readyz/ports?verbose=true", 200, "[+]ports ok\nreadyz check passed\n"),
            ("/readyz/catalog", 503, "[-]catalog not ready\nreadyz check failed\n"),
            ("/readyz/", 404, "404 page not found\n"),
            ("/readyz/nothing", 404, "404 page not found\n"),
            ("/healthz", 200, "ok\n"),
            ("/livez?a&verbose", 200, "[+]ping ok\nlivez check passed\n"),
            ("/livez/ping", 200, "ok\n"),
        ] {
            assert_eq!(answer(&readiness, asked), Some((status, body.into())), "{asked}");
        }
        latch.open();
        assert_eq!(answer(&readiness, "/readyz"), Some((200, "ok\n".into())));
        let all = "[+]ports ok\n[+]catalog ok\nreadyz check passed\n";
        assert_eq!(answer(&readiness, "/readyz?verbose"), Some((200, all.into())));
        assert_eq!((answer(&readiness, "/ready"), answer(&readiness, "/")), (None, None));
    }
}
