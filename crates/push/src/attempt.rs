//! One attempt: from a lease to what it led to.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::delivery::Outcome;
use eventbus_core::span::OpenSpan;
use eventbus_core::wire::delivery::Form;
use eventbus_core::{Clock, Entropy, Lease, Tracer};
use tokio::time::{Instant, timeout_at};

use crate::desk::Plan;
use crate::slots::Slots;
use crate::telemetry::Telemetry;
use crate::transport::{Delivery, Transport};

/// What every dispatcher and attempt uses.
pub(crate) struct Tools<T> {
    pub(crate) transport: T,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) slots: Slots,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Where traces are recorded, if they are.
    pub(crate) tracer: Option<Tracer>,
}

/// An attempt that has ended.
pub(crate) struct Ended {
    pub(crate) lease: Lease,
    /// How it was made.
    pub(crate) plan: Arc<Plan>,
    /// Wall-clock milliseconds since 1970.
    pub(crate) began_ms: u64,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

/// Delivers a leased event once.
pub(crate) async fn attempt<T: Transport>(
    tools: Arc<Tools<T>>,
    plan: Arc<Plan>,
    lease: Lease,
) -> Ended {
    let (began_ms, began) = (tools.clock.now_ms(), tools.clock.elapsed());
    let carried = &lease.event().trace;
    let span = tools.tracer.as_ref().and_then(|tracer| tracer.attempt(carried));
    let below = span.as_ref().map(|span| carried.carrying(span.context()));
    let outcome = match &plan.endpoint {
        Ok(endpoint) => {
            let deadline = Instant::now() + plan.subscription.timeout;
            let subscription = &plan.subscription;
            let form = Form {
                trace: below.as_ref().unwrap_or(carried),
                format: subscription.format,
                subscription_name: subscription
                    .names_itself
                    .then_some(&*subscription.identity.name),
                request_id: request_id(&*tools.entropy),
            };
            let delivery = Delivery { endpoint, event: lease.event(), form, deadline };
            let attempt = timeout_at(deadline, tools.transport.attempt(&delivery));
            attempt.await.unwrap_or(Outcome::Timeout)
        }
        Err(_) => Outcome::BadEndpoint,
    };
    if let (Some(tracer), Some(span)) = (&tools.tracer, span) {
        tracer.end(*tagged(span, &plan, &lease, outcome), error(outcome));
    }
    let took = tools.clock.elapsed().saturating_sub(began);
    Ended { lease, plan, began_ms, took, outcome }
}

/// The span with the contract's tags.
fn tagged(mut span: Box<OpenSpan>, plan: &Plan, lease: &Lease, outcome: Outcome) -> Box<OpenSpan> {
    let identity = &plan.subscription.identity;
    span.tag_event(lease.event());
    span.tag("sub-name", &*identity.name);
    span.tag("sub-env", &*identity.namespace);
    span.tag("attempt", u64::from(lease.attempts()) + 1);
    if let Outcome::Status(status) = outcome {
        span.tag("http.status_code", u64::from(status));
    }
    span
}

fn error(outcome: Outcome) -> Option<&'static str> {
    (!outcome.is_success()).then(|| outcome.word())
}

fn request_id(entropy: &dyn Entropy) -> u128 {
    u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64())
}
