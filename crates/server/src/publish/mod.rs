//! The publish port: events come in here.
//!
//! The road of a request: its body within the limits (`receive`), bytes to event (`core::wire`),
//! does anybody listen (`admit`), the broker, and the answer (`respond`) after the broker's.

mod admit;
mod applications;
mod level;
mod receive;
mod respond;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use eventbus_core::wire::contract::{self, Submission};
use eventbus_core::wire::error::{FrontRefusal, Refusal};
use eventbus_core::wire::front;
use eventbus_core::wire::trace::Trace;
use eventbus_core::{Batch, Broker, Catalog, Durability, Entropy, Receipt, Receipts, Source};
use eventbus_resources::Freshness;
use http::request;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::service::service_fn;
use tokio::sync::{Semaphore, watch};

pub use applications::{ApplicationError, ApplicationSource, Applications};

use crate::admin;
use crate::readiness::Readiness;
use crate::telemetry::{Published, Telemetry};
use admit::Admission;
use applications::FrontPath;
use level::level;
use receive::BodyError;

/// What the publish port is made of.
pub struct Publish {
    /// Where events are stored.
    pub broker: Arc<dyn Broker>,
    /// Who listens.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Is the catalog fresh?
    pub freshness: Freshness,
    /// Where ids of events without one come from.
    pub entropy: Arc<dyn Entropy>,
    /// The sources that the Application Connector's front adds.
    pub applications: Applications,
    /// The durability of a publish that asks for none; `None`: the strongest honest one.
    pub durability: Option<Durability>,
    /// Bytes an event's request body may have.
    pub event_bytes: usize,
    /// Publish requests that may be in work at once.
    pub in_work: Semaphore,
    /// Bytes of bodies that may be arriving at once.
    pub arriving: Semaphore,
    /// Is the process ready?
    pub readiness: Readiness,
    /// What happened.
    pub telemetry: Arc<Telemetry>,
}

type Answer = Response<Full<Bytes>>;

impl Publish {
    /// The port's service.
    pub fn service<B>(
        self: Arc<Self>,
    ) -> impl hyper::service::Service<
        Request<B>,
        Response = Answer,
        Error = Infallible,
        Future = impl Future<Output = Result<Answer, Infallible>> + Send + 'static,
    > + Clone
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Send,
    {
        service_fn(move |request| {
            let publish = self.clone();
            async move { Ok(publish.answer(request).await) }
        })
    }

    async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, body) = request.into_parts();
        match head.uri.path() {
            "/v1/events" => self.events(&head, body).await,
            "/v1/status/ready" if self.readiness.is_ready() => respond::status(200),
            "/v1/status/ready" => respond::status(502),
            "/v1/health" if head.method == Method::GET => respond::status(200),
            path => match admin::probe(path, &self.readiness) {
                Some(answer) => answer,
                None => self.other(&head, body).await,
            },
        }
    }

    async fn other<B>(&self, head: &request::Parts, body: B) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let path = FrontPath::of(head.uri.path());
        let answer = match path {
            None => return respond::not_found(),
            Some(FrontPath::Events(name)) if head.method == Method::POST => {
                self.front(name, head, body).await
            }
            Some(FrontPath::Subscribed(name)) if head.method == Method::GET => {
                self.subscribed(name)
            }
            Some(FrontPath::Unknown) => Err(FrontRefusal::NotFound),
            Some(_) => Err(FrontRefusal::MethodNotAllowed),
        };
        let answer = answer.unwrap_or_else(|refusal| respond::front_refusal(&refusal));
        if matches!(path, Some(FrontPath::Events(_))) {
            self.telemetry.published(Published::Answered(answer.status().as_u16()));
        }
        answer
    }

    /// `/v1/events`: the contract's publish.
    async fn events<B>(&self, head: &request::Parts, body: B) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if head.method == Method::OPTIONS {
            return respond::abuse_protection(&head.headers);
        }
        let published = async {
            let body = receive::body(head, body, self.event_bytes, &self.arriving).await?;
            let _in_work = self.in_work.try_acquire().map_err(|_| Refusal::TooManyRequests)?;
            if head.method != Method::POST {
                return Err(Refusal::NotPost);
            }
            let trace = Trace::from_headers(&head.headers);
            let source_id = head.headers.get("source-id");
            let source_id = source_id.map(|value| String::from_utf8_lossy(value.as_bytes()));
            let submission = contract::decode(body, source_id.as_deref(), trace, &*self.entropy)?;
            self.store(submission, &head.headers).await
        };
        let answer = published.await.unwrap_or_else(|refusal| respond::refusal(&refusal));
        self.telemetry.published(Published::Answered(answer.status().as_u16()));
        answer
    }

    /// `/{application}/v1/events`: the Application Connector's front.
    async fn front<B>(
        &self,
        name: &str,
        head: &request::Parts,
        body: B,
    ) -> Result<Answer, FrontRefusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let source = self.application(name)?;
        let too_many = |_| FrontRefusal::Relayed(Refusal::TooManyRequests);
        let body = receive::body(head, body, self.event_bytes, &self.arriving).await?;
        let _in_work = self.in_work.try_acquire().map_err(too_many)?;
        let trace = Trace::from_headers(&head.headers);
        let submission = front::decode(body, &source, trace, &*self.entropy)?;
        self.store(submission, &head.headers).await.map_err(FrontRefusal::Relayed)
    }

    /// `/{application}/v1/events/subscribed`: the types that anybody asks of an application.
    fn subscribed(&self, name: &str) -> Result<Answer, FrontRefusal> {
        let source = self.application(name)?;
        Ok(respond::subscribed(&self.catalog.borrow().subscribed(&source)))
    }

    fn application(&self, name: &str) -> Result<Source, FrontRefusal> {
        self.applications.source(name).ok_or(FrontRefusal::NotFound)
    }

    async fn store(&self, submission: Submission, asked: &HeaderMap) -> Result<Answer, Refusal> {
        let Submission { event, durability } = submission;
        let capabilities = self.broker.capabilities();
        let durability = level(asked, durability.as_ref(), self.durability, capabilities)?;
        let id = event.id.clone();
        match admit::admit(&event, &self.catalog, &self.freshness).await {
            Admission::Ignored => {
                self.telemetry.published(Published::Ignored);
                Ok(respond::ignored(&id))
            }
            Admission::Wanted => {
                let payload_bytes = event.payload.len();
                let Receipts { receipts, durability } =
                    self.broker.append(Batch::of_one(event), durability).await?;
                match receipts.first().ok_or(Refusal::Internal)? {
                    Receipt::Stored(_) | Receipt::Accepted | Receipt::Delayed => {
                        self.telemetry.published(Published::Stored { payload_bytes });
                        Ok(respond::published(&id, durability))
                    }
                    Receipt::Duplicate => Ok(respond::duplicate(&id, durability)),
                }
            }
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::TooLarge,
            BodyError::TooSlow => Self::TooSlow,
            BodyError::Broken => Self::BadPayload,
            BodyError::TooMany => Self::TooManyRequests,
        }
    }
}

impl From<BodyError> for FrontRefusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::TooLarge,
            BodyError::TooSlow => Self::Relayed(Refusal::TooSlow),
            BodyError::Broken => Self::EmptyBody,
            BodyError::TooMany => Self::Relayed(Refusal::TooManyRequests),
        }
    }
}
