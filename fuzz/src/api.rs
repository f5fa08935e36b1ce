//! The embedded API: any method, path, query and body.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use eventbus_apiserver::{ApiServer, Config};
use eventbus_resources::DEFINITIONS;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use tokio::runtime::Runtime;
use tower::ServiceExt;

use super::Still;

/// A watch is not listened to for longer.
const WAIT: Duration = Duration::from_millis(20);

/// A running server, in a folder of its own.
struct Served {
    runtime: Runtime,
    server: ApiServer,
    _folder: tempfile::TempDir,
}

/// A request as text: `METHOD path?query`, then the media types of the body and of the answer, a
/// line each, then the body. Every answer must be one that a server with no defects could give.
pub fn api(bytes: &[u8]) {
    static SERVED: OnceLock<Served> = OnceLock::new();
    let Some(request) = request(bytes) else { return };
    let said = format!("{request:?}");
    let served = SERVED.get_or_init(Served::start);
    served.runtime.block_on(async {
        let answer = served.server.service().oneshot(request).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        let status = answer.status().as_u16();
        assert!((200..500).contains(&status), "{status} to {said}");
        let _ = tokio::time::timeout(WAIT, answer.into_body().collect()).await;
    });
}

fn request(bytes: &[u8]) -> Option<Request<Full<Bytes>>> {
    let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || std::str::from_utf8(lines.next().unwrap_or_default()).ok();
    let (asked, content_type, accept) = (line()?, line()?, line()?);
    let (method, target) = asked.split_once(' ')?;
    let body = Bytes::copy_from_slice(lines.next().unwrap_or_default());
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in [(header::CONTENT_TYPE, content_type), (header::ACCEPT, accept)] {
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    request.body(Full::new(body)).ok()
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime");
        let world = Arc::new(Still::default());
        let config = Config {
            path: folder.path().join("resources.db"),
            audit: None,
            definitions: DEFINITIONS.map(|definition| definition.manifest()).into(),
            clock: world.clone(),
            entropy: world,
        };
        let server = runtime.block_on(ApiServer::open(config)).expect("an empty folder");
        Self { runtime, server, _folder: folder }
    }
}
