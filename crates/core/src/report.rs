//! What the processes of a bus tell each other of how deliveries go, and how it is written.
//!
//! Reports go where some may get lost, and anybody may put in what he likes. So nothing depends on
//! a single one: everything is told again in rounds, and what is not told any more is over.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::event::Text;
use crate::limits;
use crate::reconcile::Health;
use crate::seams::Entropy;

/// A process of the bus, by a number that it draws at its start. Written as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId(u128);

/// What one process says of Subscriptions for which it pushes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Grows each time the process begins to tell everything.
    pub round: u64,
    /// The process ends: whatever it said is over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub farewell: bool,
    /// What is so now. Of others what was said still holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<Said>,
}

/// What is said of one Subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its uid.
    pub uid: Text,
    /// How it is. By default what was said of it is over.
    #[serde(flatten)]
    pub health: Health,
}

/// Why a report cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is not written as a report is.
    #[error("it is no report: {0}")]
    Json(#[from] serde_json::Error),
    /// It tells of too many Subscriptions.
    #[error("it tells of {0} Subscriptions: more than {max}", max = limits::REPORT_SUBSCRIPTIONS)]
    Subscriptions(usize),
    /// A uid is too long.
    #[error("a uid in it has {0} bytes: more than {max}", max = limits::REPORT_UID_BYTES)]
    Uid(usize),
}

/// Why a text is no [`ProcessId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a process is named by 32 hex digits in lower case")]
pub struct NoProcessId;

// === impl ProcessId ===

impl ProcessId {
    /// A new one.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        Self(u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64()))
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

impl FromStr for ProcessId {
    type Err = NoProcessId;

    fn from_str(text: &str) -> Result<Self, NoProcessId> {
        let id = Self(u128::from_str_radix(text, 16).map_err(|_| NoProcessId)?);
        // One process has one name only.
        if id.to_string() == text { Ok(id) } else { Err(NoProcessId) }
    }
}

// === impl Report ===

impl Report {
    /// As it is told.
    pub fn to_json(&self) -> Result<Vec<u8>, ReportError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads what somebody told.
    pub fn from_json(json: &[u8]) -> Result<Self, ReportError> {
        let report: Self = serde_json::from_slice(json)?;
        if report.subscriptions.len() > limits::REPORT_SUBSCRIPTIONS {
            return Err(ReportError::Subscriptions(report.subscriptions.len()));
        }
        let longest = report.subscriptions.iter().map(|said| said.uid.len()).max().unwrap_or(0);
        if longest > limits::REPORT_UID_BYTES {
            return Err(ReportError::Uid(longest));
        }
        Ok(report)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Outcome;
    use crate::reconcile::{Backlog, DeliveryHealth, Fill};
    use crate::testing::SeededEntropy;

    fn said(uid: &str, delivery: DeliveryHealth, backlog: Option<Backlog>) -> Said {
        Said { uid: uid.into(), health: Health { delivery, backlog } }
    }

    fn written(report: &Report) -> String {
        String::from_utf8(report.to_json().unwrap()).unwrap()
    }

    #[test]
    fn a_report_is_drawn_and_read_back() {
        let lost = Backlog { lost_events: 3, fill: None };
        let fill = Some(Fill { bytes: 519, max_bytes: 1_000 });
        let full = Backlog { lost_events: 0, fill };
        let subscriptions = vec![
            said("a", DeliveryHealth::Failing(Outcome::Status(503)), Some(lost)),
            said("b", DeliveryHealth::Failing(Outcome::Timeout), None),
            said("c", DeliveryHealth::Delivering, Some(full)),
            said("d", DeliveryHealth::Untried, None),
        ];
        let report = Report { round: 7, farewell: false, subscriptions };
        let drawn = concat!(
            r#"{"round":7,"subscriptions":["#,
            r#"{"uid":"a","delivery":{"failing":503},"backlog":{"lost_events":3}},"#,
            r#"{"uid":"b","delivery":{"failing":1}},"#,
            r#"{"uid":"c","delivery":"delivering","#,
            r#""backlog":{"lost_events":0,"fill":{"bytes":519,"max_bytes":1000}}},"#,
            r#"{"uid":"d","delivery":"untried"}]}"#,
        );
        assert_eq!(written(&report), drawn);
        assert_eq!(Report::from_json(drawn.as_bytes()).unwrap(), report);
        let farewell = Report { round: 7, farewell: true, ..Report::default() };
        assert_eq!(written(&farewell), r#"{"round":7,"farewell":true}"#);
        assert_eq!(Report::from_json(written(&farewell).as_bytes()).unwrap(), farewell);
    }

    #[test]
    fn what_is_no_report_is_not_read() {
        let strange =
            [&b""[..], b"[]", b"{}", b"{\"round\":-1}", b"\xff", b"{\"round\":1,\"farewell\":7}"];
        for json in strange {
            assert!(matches!(Report::from_json(json), Err(ReportError::Json(_))), "{json:?}");
        }
        let unknown = br#"{"round":1,"subscriptions":[{"uid":"a","delivery":"dancing"}]}"#;
        assert!(matches!(Report::from_json(unknown), Err(ReportError::Json(_))));
        let one = said("a", DeliveryHealth::Delivering, None);
        let subscriptions = vec![one; limits::REPORT_SUBSCRIPTIONS];
        let mut report = Report { subscriptions, ..Report::default() };
        assert!(Report::from_json(written(&report).as_bytes()).is_ok());
        report.subscriptions.push(report.subscriptions[0].clone());
        let refused = Report::from_json(written(&report).as_bytes());
        assert!(matches!(refused, Err(ReportError::Subscriptions(251))));
        let uid = "u".repeat(limits::REPORT_UID_BYTES + 1);
        report.subscriptions = vec![said(&uid, DeliveryHealth::Delivering, None)];
        let refused = Report::from_json(written(&report).as_bytes());
        assert!(matches!(refused, Err(ReportError::Uid(129))));
    }

    #[test]
    fn the_largest_report_is_far_below_what_nats_takes() {
        let uid = "u".repeat(limits::REPORT_UID_BYTES);
        let fill = Some(Fill { bytes: u64::MAX, max_bytes: u64::MAX });
        let full = Backlog { lost_events: u64::MAX, fill };
        let one = said(&uid, DeliveryHealth::Failing(Outcome::Status(599)), Some(full));
        let subscriptions = vec![one; limits::REPORT_SUBSCRIPTIONS];
        let report = Report { round: u64::MAX, farewell: false, subscriptions };
        let bytes = written(&report).len();
        assert!(bytes < 256 * 1024, "{bytes} bytes");
    }

    #[test]
    fn a_process_has_one_name() {
        let entropy = SeededEntropy::new(3);
        let (one, other) = (ProcessId::draw(&entropy), ProcessId::draw(&entropy));
        assert_ne!(one, other);
        for id in [one, other, ProcessId(0), ProcessId(u128::MAX)] {
            assert_eq!(id.to_string().len(), 32);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        let strange = ["", "0", "asked", "+0000000000000000000000000000000", &"F".repeat(32)];
        for text in strange {
            assert_eq!(text.parse::<ProcessId>(), Err(NoProcessId), "{text}");
        }
    }
}
