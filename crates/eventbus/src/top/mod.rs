//! `eventbus top`: what a bus does now, from its metrics: rates, latencies, and the Subscriptions
//! that lag most.
//!
//! On a terminal it is shown anew again and again, also across a restart of the bus; anywhere else
//! once.

mod page;
mod screen;
mod table;
mod view;

use std::future::pending;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Request, Uri};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::cli::{self, Fault, World};
use crate::output::{self, printable};
use page::Page;
use screen::Screen;
use view::View;

/// How long a bus may take to tell its metrics.
const PATIENCE: Duration = Duration::from_secs(5);

/// The shortest interval: a bus has better things to do.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Rows of a screen that are not a Subscription's: the lines above them, their headings, how many
/// more there are, and the last one.
const OTHER_ROWS: usize = 18;

/// What `eventbus top` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the API port is, and a token for it
    #[arg(long, default_value = "eventbus-data/kubeconfig", value_name = "FILE")]
    kubeconfig: PathBuf,

    /// The URL of the API port, in place of the kubeconfig: for a bus over a real API server, which
    /// asks for no token
    #[arg(long, value_name = "URL", conflicts_with = "kubeconfig")]
    url: Option<Uri>,

    /// The file with the token for that URL
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,

    /// How often to look
    #[arg(long, default_value = "2s", value_parser = cli::duration, value_name = "TIME")]
    interval: Duration,

    /// Print one table after one interval, and end: what is done where no terminal is
    #[arg(long)]
    once: bool,

    /// The same as one JSON object
    #[arg(long)]
    json: bool,
}

/// The bus that is looked at.
struct Bus {
    kubeconfig: PathBuf,
    url: Option<Uri>,
    token_file: Option<PathBuf>,
    /// Made anew after a failure: another start may have another address.
    client: Option<Client>,
    world: World,
}

/// A page, and when it came: time since this process began.
type Scrape = (Page, Duration);

/// What is shown.
#[derive(Default)]
enum Shown {
    /// Nothing is known yet.
    #[default]
    Nothing,
    View(Box<View>),
    /// The bus does not answer, for this reason.
    Away(String),
}

/// Looks at a bus: until it is told to end, or once.
pub(crate) async fn run(args: Args, world: World) -> Result<(), Fault> {
    if args.interval < INTERVAL_MIN {
        return Err(Fault::Usage("--interval: give 100ms or more".to_owned()));
    }
    let is_once = args.once || args.json || !std::io::stdout().is_terminal();
    let Args { kubeconfig, url, token_file, interval, json, .. } = args;
    let bus = Bus { kubeconfig, url, token_file, client: None, world };
    if is_once { once(bus, interval, json).await } else { live(bus, interval).await }
}

async fn once(mut bus: Bus, interval: Duration, as_json: bool) -> Result<(), Fault> {
    let before = bus.scrape().await.map_err(Fault::Failed)?;
    sleep(interval).await;
    let now = bus.scrape().await.map_err(Fault::Failed)?;
    let Some(view) = bus.view(&before, &now) else {
        return Err(Fault::Failed("the bus was started anew meanwhile: look again".to_owned()));
    };
    if as_json {
        let json = serde_json::to_string(&view);
        return output::line(&json.map_err(|error| Fault::Failed(error.to_string()))?);
    }
    table::lines(&view, table::WORST).iter().try_for_each(|line| output::line(line))
}

async fn live(mut bus: Bus, every: Duration) -> Result<(), Fault> {
    // What cannot be read at all is told before there is a screen.
    bus.client = Some(bus.connect().await.map_err(Fault::Usage)?);
    let failed = |error: std::io::Error| Fault::Failed(format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let (shown, mut latest) = watch::channel(Shown::Nothing);
    let mut looking = JoinSet::new();
    looking.spawn(look(bus, every, shown));
    let screen = Screen::open()?;
    let mut keys = tokio::io::stdin();
    loop {
        screen.show(&lines(&latest.borrow_and_update(), &screen, every))?;
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            ends = is_end(&mut keys, screen.has_keys()) => if ends { return Ok(()) },
            _ = resized.recv() => {}
            changed = latest.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// Waits for a key; tells whether it ends the view: `q`, or what elsewhere ends a program or its
/// input (Ctrl-C, Ctrl-\, Ctrl-D).
async fn is_end(keys: &mut tokio::io::Stdin, are_heard: bool) -> bool {
    let mut key = [0];
    if are_heard && let Ok(1..) = keys.read(&mut key).await {
        return matches!(&key, b"q" | b"Q" | b"\x03" | b"\x1c" | b"\x04");
    }
    pending().await
}

/// The task: looks again and again.
async fn look(mut bus: Bus, every: Duration, shown: watch::Sender<Shown>) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Scrape> = None;
    loop {
        ticks.tick().await;
        match bus.scrape().await {
            Ok(now) => {
                let view = before.as_ref().and_then(|before| bus.view(before, &now));
                shown.send_replace(match view {
                    Some(view) => Shown::View(Box::new(view)),
                    None => Shown::Nothing,
                });
                before = Some(now);
            }
            Err(why) => {
                shown.send_replace(Shown::Away(why));
                before = None;
            }
        }
    }
}

fn lines(shown: &Shown, screen: &Screen, every: Duration) -> Vec<String> {
    let mut lines = match shown {
        Shown::Nothing => vec!["looking …".to_owned()],
        Shown::Away(why) => {
            vec!["the bus does not answer; it is asked again".to_owned(), printable(why)]
        }
        Shown::View(view) => table::lines(view, screen.size().rows.saturating_sub(OTHER_ROWS)),
    };
    let seconds = every.as_secs_f64();
    let key = if screen.has_keys() { "q" } else { "Ctrl-C" };
    lines.extend([String::new(), format!("every {seconds} s; {key} ends")]);
    lines
}

// === impl Bus ===

impl Bus {
    /// What happened between two scrapes; `None` when they are of two processes.
    fn view(&self, before: &Scrape, now: &Scrape) -> Option<View> {
        let ((before, then), (now, at)) = (before, now);
        let interval = at.saturating_sub(*then);
        let now_ms = self.world.clock.now_ms();
        view::are_of_one_process(before, now).then(|| View::between(before, now, interval, now_ms))
    }

    async fn scrape(&mut self) -> Result<Scrape, String> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        let request =
            Request::get("/metrics").body(Vec::new()).map_err(|error| error.to_string())?;
        let answer = timeout(PATIENCE, client.request_text(request)).await;
        let answer = answer.map_err(|_| format!("no metrics came within {PATIENCE:?}"))?;
        let text = answer.map_err(|error| format!("/metrics: {error}"))?;
        self.client = Some(client);
        Ok((Page::parse(&text), self.world.clock.elapsed()))
    }

    async fn connect(&self) -> Result<Client, String> {
        let config = match &self.url {
            Some(url) => at_url(url, self.token_file.as_deref()).await?,
            None => named_in(&self.kubeconfig).await?,
        };
        Client::try_from(config).map_err(|error| error.to_string())
    }
}

async fn at_url(url: &Uri, token_file: Option<&Path>) -> Result<Config, String> {
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(format!("--url {url}: give a URL that starts with http:// or https://"));
    }
    let mut config = Config::new(url.clone());
    if let Some(file) = token_file {
        let token = tokio::fs::read_to_string(file).await;
        let token = token.map_err(|error| format!("{}: {error}", file.display()))?;
        config.auth_info.token = Some(token.trim().to_owned().into());
    }
    Ok(config)
}

async fn named_in(kubeconfig: &Path) -> Result<Config, String> {
    let wrong = |why: String| format!("{}: {why}", kubeconfig.display());
    let file = Kubeconfig::read_from(kubeconfig).map_err(|error| wrong(error.to_string()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    config.map_err(|error| wrong(error.to_string()))
}
