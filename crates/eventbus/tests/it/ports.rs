//! The ports, byte by byte: what is neither a request nor the end of a connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::program::within;
use crate::served::{Bus, event};

/// Writes `bytes` and reads until the bus closes the connection.
async fn say(port: &str, bytes: &[u8]) -> String {
    let address = port.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // The bus may reset the connection when it has not read all that was said.
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn silence_is_ended_and_so_is_half_a_beginning() {
    let bus = Bus::start().await;
    let mut silent = JoinSet::new();
    for port in [&bus.publish, &bus.api] {
        for beginning in [
            "",
            "P",
            "PRI * HTTP/2.0\r\n",
            "POST /v1/events HTTP/1.1\r\nHost: a\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            let port = port.clone();
            silent.spawn(async move { (beginning, say(&port, beginning.as_bytes()).await) });
        }
    }
    // They end; what the bus says to a half-sent head is its own affair.
    while let Some(ended) = silent.join_next().await {
        let (beginning, answer) = ended.unwrap();
        let is_told = beginning.contains("HTTP/1.1") || beginning.starts_with('\u{16}');
        assert!(is_told || answer.is_empty(), "{beginning}: {answer}");
    }
}

#[tokio::test]
async fn what_follows_a_request_does_not_hold_its_answer_back() {
    let bus = Bus::start().await;
    let body = event("order.created", &1.into()).to_string();
    let length = body.len();
    let head =
        format!("POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n");
    let mut asked = JoinSet::new();
    for (what, after) in [
        ("nothing", ""),
        ("an empty line", "\r\n"),
        ("half of a request", "GET /v1/health HTT"),
        ("no HTTP at all", "\u{1}\u{2} garbage\r\n\r\n"),
    ] {
        let (port, request) = (bus.publish.clone(), format!("{head}\r\n{body}{after}"));
        asked.spawn(
            async move { (what, "HTTP/1.1 200 OK\r\n", say(&port, request.as_bytes()).await) },
        );
    }
    for (what, request) in [
        ("garbage", "\u{1}\u{2} garbage\r\n\r\n".to_owned()),
        (
            "a bad chunk",
            "POST /v1/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
                .to_owned(),
        ),
        ("many headers", format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200))),
        ("a huge head", format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(600_000))),
    ] {
        let port = bus.publish.clone();
        asked.spawn(async move { (what, "HTTP/1.1 4", say(&port, request.as_bytes()).await) });
    }
    while let Some(answered) = asked.join_next().await {
        let (what, wanted, answer) = answered.unwrap();
        assert!(answer.starts_with(wanted), "{what}: {answer:?}");
    }
}

/// Sends so many megabytes to the API port, while the answer is read or before it is.
async fn upload(bus: &Bus, token: &str, megabytes: usize, reads_meanwhile: bool) -> String {
    let address = bus.api.trim_start_matches("http://").to_owned();
    let (mut input, mut output) = TcpStream::connect(address).await.unwrap().into_split();
    let head = format!(
        "POST /api/v1/namespaces HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        megabytes << 20
    );
    let sending = async {
        output.write_all(head.as_bytes()).await?;
        for _ in 0..megabytes {
            output.write_all(&[b' '; 1 << 20]).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let mut answer = Vec::new();
    let reading = input.read_to_end(&mut answer);
    if reads_meanwhile {
        // Where the bus has read enough, it lets the connection break.
        let _ = within(async { tokio::join!(sending, reading) }).await;
    } else {
        within(sending).await.unwrap();
        within(reading).await.unwrap();
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_refusal_reaches_whoever_is_still_sending() {
    let bus = Bus::start().await;
    let token = std::fs::read_to_string(bus.data_dir().join("token")).unwrap();
    let token = token.trim();
    for _ in 0..3 {
        let answer = upload(&bus, token, 4, false).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("RequestEntityTooLarge"), "{answer}");
        let answer = upload(&bus, "wrong", 4, false).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    let answer = upload(&bus, token, 64, true).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}
