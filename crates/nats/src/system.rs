//! The servers' system account, through which all of them tell how they sync.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::{Client, Message};
use eventbus_core::limits;
use futures::StreamExt;
use serde::Deserialize;
use tokio::time::timeout;

use crate::access;
use crate::config::{Access, NatsConfig};
use crate::sync::Varz;

/// Where every server answers that hears it.
const ASK: &str = "$SYS.REQ.SERVER.PING.VARZ";

/// How long answers are waited for: they come within milliseconds, and how many there will be is
/// known with the first.
const ANSWER_TIME: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Answer {
    server: Server,
    data: Varz,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

/// Does each server sync before it acknowledges? Asked over a connection of its own.
pub(crate) async fn syncs_always(config: &NatsConfig, who: &Access) -> Result<bool, String> {
    let options = access::options(who, &config.tls).await.map_err(|error| error.to_string())?;
    let connecting = timeout(limits::NATS_CALL_TIME, options.connect(config.urls.as_slice()));
    let connected = connecting.await.map_err(|_| "the NATS server does not answer".to_owned())?;
    let client = connected
        .map_err(|error| format!("the system account: {}", access::explain(who, &error)))?;
    let servers = ask(&client).await?;
    let wanted = servers.values().map(Varz::servers).max().unwrap_or(1);
    let storing: Vec<bool> = servers.values().filter_map(Varz::syncs_always).collect();
    if storing.len() < wanted {
        return Err(format!("{} of {wanted} servers told the system account", storing.len()));
    }
    Ok(storing.into_iter().all(|always| always))
}

/// What the servers answer, by their ids.
async fn ask(client: &Client) -> Result<HashMap<String, Varz>, String> {
    let inbox = client.new_inbox();
    let failed = |error: &dyn std::fmt::Display| format!("the system account: {error}");
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let asked = client.publish_with_reply(ASK, inbox, Default::default()).await;
    asked.map_err(|error| failed(&error))?;
    let mut servers = HashMap::new();
    let listening = async {
        while let Some(answer) = answers.next().await {
            let (id, varz) = read(&answer)?;
            let wanted = varz.servers();
            servers.insert(id, varz);
            if servers.len() >= wanted {
                break;
            }
        }
        Ok(())
    };
    match timeout(ANSWER_TIME, listening).await {
        Ok(Err(reason)) => Err(reason),
        // Who has not answered by now is missed when they are counted.
        Ok(Ok(())) | Err(_) => Ok(servers),
    }
}

fn read(answer: &Message) -> Result<(String, Varz), String> {
    if answer.status.is_some() {
        return Err("its account is not the servers' system account".to_owned());
    }
    let read: Result<Answer, _> = serde_json::from_slice(&answer.payload);
    let Answer { server, data } = read.map_err(|error| format!("the system account: {error}"))?;
    Ok((server.id, data))
}
