//! The API port: the embedded Kubernetes-style API and the operators' endpoints behind one gate.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;

use bytes::Bytes;
use eventbus_apiserver::{Gate, Service as Resources};
use eventbus_server::unread::{self, Lent};
use eventbus_server::{Admin, admin};
use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use tower::{Layer, Service, ServiceExt};

type BodyError = Box<dyn Error + Send + Sync>;

/// The port's service where the resources are on a real API server: the operators' endpoints alone.
/// Who may ask there is the cluster's to say: we know no users.
pub(super) fn operators(
    admin: Admin,
) -> TowerToHyperService<
    impl Service<
        Request<Incoming>,
        Response = Response<impl http_body::Body<Data = Bytes, Error = BodyError> + Send>,
        Error = Infallible,
        Future = impl Future + Send,
    > + Clone,
> {
    TowerToHyperService::new(tower::service_fn(move |request: Request<Incoming>| {
        let admin = admin.clone();
        async move {
            let answer = admin.answer(&request).await;
            let not_found = || admin::not_found().map(Either::Left);
            Ok::<_, Infallible>(answer.unwrap_or_else(not_found))
        }
    }))
}

/// The port's service.
pub(super) fn service(
    resources: Resources,
    gate: Gate,
    admin: Admin,
) -> TowerToHyperService<
    impl Service<
        Request<Incoming>,
        Response = Response<impl http_body::Body<Data = Bytes, Error = BodyError> + Send>,
        Error = Infallible,
        Future = impl Future + Send,
    > + Clone,
> {
    let inside = tower::service_fn(move |request: Request<Lent<Incoming>>| {
        let (resources, admin) = (resources.clone(), admin.clone());
        async move {
            match admin.answer(&request).await {
                Some(answer) => Ok(answer.map(Either::<_, admin::Body>::Right)),
                None => {
                    let answer = resources.oneshot(request).await?;
                    Ok::<_, Infallible>(answer.map(Either::Left))
                }
            }
        }
    });
    let gated = gate.layer(inside);
    TowerToHyperService::new(tower::service_fn(move |request: Request<Incoming>| {
        let gated = gated.clone();
        unread::answer(request, |request| gated.oneshot(request))
    }))
}
