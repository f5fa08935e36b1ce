//! Who subscribes, by whatever means the target has: its Kubernetes API, an API of its own, or a
//! person who reads what is to be made.

use super::args::Target;
use super::event::{EVENT_TYPE_VERSION, SOURCE_ID};
use super::plan::Plan;
use super::resources::{Resources, Wanted};
use super::svix::Svix;
use crate::cli::Fault;
use crate::output;

/// The Subscriptions of one run.
pub(super) enum Subscriptions {
    /// Resources of a bus.
    Kubernetes(Resources),
    /// Endpoints of a Svix server.
    Svix(Box<Svix>),
    /// They must be there already.
    ByHand,
    /// Nothing is delivered.
    None,
}

impl Subscriptions {
    /// Those of run `run`; nothing is made yet.
    pub(super) async fn of_run(run: u64, plan: &Plan) -> Result<Self, Fault> {
        Ok(match plan.load.target {
            Target::Bus => Self::Kubernetes(Resources::of_run(run, &plan.kubeconfig).await?),
            Target::Svix => Self::Svix(Box::new(Svix::of_run(run, &plan.load)?)),
            _ if plan.delivers() => Self::ByHand,
            _ => Self::None,
        })
    }

    /// Makes them, or says what is to be made.
    pub(super) async fn create(&self, wanted: &[Wanted]) -> Result<(), Fault> {
        match self {
            Self::Kubernetes(resources) => resources.create(wanted).await,
            Self::Svix(svix) => svix.create(wanted).await,
            Self::ByHand => {
                output::note("these Subscriptions must be there already:");
                for Wanted { endpoint, event_type, .. } in wanted {
                    output::note(&format!(
                        "  source {SOURCE_ID}, type {event_type} (version {EVENT_TYPE_VERSION}) to \
                         {endpoint}"
                    ));
                }
                Ok(())
            }
            Self::None => Ok(()),
        }
    }

    /// Lets events through, and waits until all of `wanted` are active and the first `healthy` of
    /// them ready.
    pub(super) async fn activate(&self, wanted: &[Wanted], healthy: u32) -> Result<(), Fault> {
        let Self::Kubernetes(resources) = self else {
            return Ok(());
        };
        resources.activate().await?;
        resources.wait("events-activated", wanted.len()).await?;
        resources.wait("ready", healthy as usize).await
    }

    /// Removes what was made of `wanted`.
    pub(super) async fn delete(&self, wanted: &[Wanted]) -> Result<(), Fault> {
        match self {
            Self::Kubernetes(resources) => resources.delete().await,
            Self::Svix(svix) => svix.delete(wanted).await,
            Self::ByHand | Self::None => Ok(()),
        }
    }

    /// What to look at when nothing arrives at all.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Kubernetes(_) | Self::None => "",
            Self::Svix(_) => {
                "; nothing arrived at all: does the server post to private addresses \
                 (SVIX_WHITELIST_SUBNETS)?"
            }
            Self::ByHand => "; nothing arrived at all: are the Subscriptions there as told above?",
        }
    }
}
