//! The publish port: events come in here.
//!
//! The road of a request: its body within the limits (`receive`), bytes to event (`form`, and
//! `core::wire`), does anybody listen (`admit`), the broker (`store`), and the answer (`respond`)
//! after the broker's.

mod admit;
mod applications;
mod batch;
mod finish;
mod form;
mod level;
mod receive;
mod respond;
mod store;
mod traced;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::wire::error::{FrontDialect, FrontRefusal, Refusal};
use eventbus_core::wire::front;
use eventbus_core::wire::submission::{BatchLimits, RequestHead};
use eventbus_core::{Broker, Catalog, Clock, Durability, Entropy, Source, Tracer};
use eventbus_resources::Freshness;
use http::request;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::service::service_fn;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

pub use applications::{ApplicationError, ApplicationSource, Applications};

use crate::admin;
use crate::readiness::Readiness;
use crate::telemetry::{Published, Telemetry};
use applications::FrontPath;
use finish::Finished;
use form::{Door, Form, One};
use receive::BodyError;
use traced::Traced;

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
    /// In whose words that front answers.
    pub front: FrontDialect,
    /// When it is: for events that are to be delivered later.
    pub clock: Arc<dyn Clock>,
    /// The durability of a publish that asks for none; `None`: the strongest honest one.
    pub durability: Option<Durability>,
    /// Bytes an event's request body may have, or its part of a batch.
    pub event_bytes: usize,
    /// Bytes a batch's request body may have.
    pub batch_bytes: usize,
    /// Events a batch may have.
    pub batch_events: usize,
    /// Publish requests that may be in work at once.
    pub in_work: Semaphore,
    /// Bytes of bodies that may be arriving at once.
    pub arriving: Semaphore,
    /// KiB of delayed events that batches may have on their way to the broker.
    pub delaying: Semaphore,
    /// Requests whose publishers went away before the answer: they are finished all the same.
    pub unfinished: TaskTracker,
    /// Is the process ready?
    pub readiness: Readiness,
    /// What happened.
    pub telemetry: Arc<Telemetry>,
    /// Where traces are recorded, if they are.
    pub tracer: Option<Tracer>,
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
            Finished::new(self.clone(), async move { Ok(publish.answer(request).await) })
        })
    }

    async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, body) = request.into_parts();
        match head.uri.path() {
            "/v1/events" => self.publish(Door::Events, head, body).await,
            "/v1/events/batch" => self.publish(Door::Batch, head, body).await,
            "/publish" => self.publish(Door::CloudEvents, head, body).await,
            "/v1/status/ready" if self.readiness.is_ready() => respond::status(200),
            "/v1/status/ready" => respond::status(502),
            "/v1/health" if head.method == Method::GET => respond::status(200),
            _ => match admin::probe(&head.uri, &self.readiness) {
                Some(answer) => answer,
                None => self.other(head, body).await,
            },
        }
    }

    async fn other<B>(&self, head: request::Parts, body: B) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let uri = head.uri.clone();
        let (path, began) = (FrontPath::of(uri.path()), self.clock.elapsed());
        let refused = |refusal| respond::front_refusal(&refusal, self.front);
        let answer = match path {
            None => return respond::not_found(),
            Some(FrontPath::Events(name)) if head.method == Method::POST => {
                let mut traced = Traced::begin(self.tracer.as_ref(), &head.headers);
                let published = self.front(name, head, body, &mut traced).await;
                if let Err(refusal) = &published {
                    traced.fails(|| refusal.kind());
                }
                let answer = published.unwrap_or_else(refused);
                traced.end(self.tracer.as_ref(), &answer);
                answer
            }
            Some(FrontPath::Subscribed(name)) if head.method == Method::GET => {
                self.subscribed(name).unwrap_or_else(refused)
            }
            Some(FrontPath::Unknown) => refused(FrontRefusal::NotFound),
            Some(_) => refused(FrontRefusal::MethodNotAllowed),
        };
        if matches!(path, Some(FrontPath::Events(_))) {
            self.answered(&answer, began);
        }
        answer
    }

    /// Takes note of the answer to a publish that began then.
    fn answered(&self, answer: &Answer, began: Duration) {
        let took = self.clock.elapsed().saturating_sub(began);
        let status = answer.status().as_u16();
        self.telemetry.published(Published::Answered { status, took });
    }

    /// The paths of publish, in every form that a request may have.
    async fn publish<B>(&self, door: Door, head: request::Parts, body: B) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        match head.method {
            Method::OPTIONS => return respond::abuse_protection(&head.headers),
            Method::POST => {}
            _ if door == Door::CloudEvents => return respond::post_only(),
            _ => {}
        }
        let (form, began) = (Form::of(door, &head.headers), self.clock.elapsed());
        let mut traced = Traced::begin(self.tracer.as_ref(), &head.headers);
        let published = async {
            let max = match form {
                Form::One(_) => self.event_bytes,
                Form::Batch(_) => self.batch_bytes,
            };
            let body = receive::body(&head, body, max, &self.arriving).await?;
            let _in_work = self.in_work.try_acquire().map_err(|_| Refusal::TooManyRequests)?;
            if head.method != Method::POST {
                return Err(Refusal::NotPost);
            }
            match form {
                Form::One(form) => self.one(form, head, body, &mut traced).await,
                Form::Batch(form) => self.batch(form, head, body, &mut traced).await,
            }
        };
        let published = published.await;
        if let Err(refusal) = &published {
            traced.fails(|| refusal.body().kind);
        }
        let answer = published.unwrap_or_else(|refusal| form.refusal(&refusal));
        traced.end(self.tracer.as_ref(), &answer);
        self.answered(&answer, began);
        answer
    }

    async fn one(
        &self,
        form: One,
        head: request::Parts,
        body: Bytes,
        traced: &mut Traced,
    ) -> Result<Answer, Refusal> {
        let request = self.read(&head, traced)?;
        let submission = form.read(&head, body, &request)?;
        let asked = self.asked(submission, &head.headers, traced)?;
        // It lies in the connection's read buffer, which can be used again without it.
        drop(head);
        Ok(form.answer(&self.store(asked, traced).await?))
    }

    async fn batch(
        &self,
        form: form::Batch,
        head: request::Parts,
        body: Bytes,
        traced: &mut Traced,
    ) -> Result<Answer, Refusal> {
        let atomic = form::is_atomic(head.uri.query())?;
        let request = self.read(&head, traced)?;
        let limits = BatchLimits { event_bytes: self.event_bytes, events: self.batch_events };
        let body_bytes = body.len();
        let submissions = form.read(&head, body, &request, limits)?;
        traced.brings_many(submissions.len());
        let span = traced.context();
        let asked = batch::Asked { headers: &head.headers, atomic, body_bytes, span };
        let stored = self.store_batch(submissions, asked).await?;
        Ok(respond::batch(&stored))
    }

    /// `/{application}/v1/events`: the Application Connector's front.
    async fn front<B>(
        &self,
        name: &str,
        head: request::Parts,
        body: B,
        traced: &mut Traced,
    ) -> Result<Answer, FrontRefusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let source = self.application(name)?;
        let too_many = |_| FrontRefusal::Relayed(Refusal::TooManyRequests);
        let body = receive::body(&head, body, self.event_bytes, &self.arriving).await?;
        let _in_work = self.in_work.try_acquire().map_err(too_many)?;
        let relayed = FrontRefusal::Relayed;
        let request = self.read(&head, traced).map_err(relayed)?;
        let submission = front::decode(body, &source, &request)?;
        let asked = self.asked(submission, &head.headers, traced).map_err(relayed)?;
        drop(head);
        let stored = self.store(asked, traced).await.map_err(relayed)?;
        Ok(respond::front_stored(&stored, self.front))
    }

    /// What the request says beside its body.
    fn read<'h>(
        &'h self,
        head: &'h request::Parts,
        traced: &mut Traced,
    ) -> Result<RequestHead<'h>, Refusal> {
        RequestHead::read(&head.headers, std::mem::take(&mut traced.trace), &*self.entropy)
    }

    /// `/{application}/v1/events/subscribed`: the types that anybody asks of an application.
    fn subscribed(&self, name: &str) -> Result<Answer, FrontRefusal> {
        let source = self.application(name)?;
        Ok(respond::subscribed(&self.catalog.borrow().subscribed(&source)))
    }

    fn application(&self, name: &str) -> Result<Source, FrontRefusal> {
        self.applications.source(name).ok_or(FrontRefusal::NotFound)
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
