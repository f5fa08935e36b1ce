//! The page of `eventbus bench --html`, in a real browser.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::bus::{Bus, Flaw};
use crate::program::run;

/// Looks at the page it stands in, and writes down what it sees.
const LOOK: &str = r#"<script>
const boxes = (outer, inner) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
  && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
const overlap = (one, other) => one.left < other.right && other.left < one.right
  && one.top < other.bottom && other.top < one.bottom;
const luminance = (color) => {
  const [r, g, b] = color.match(/[\d.]+/g).map((part) => {
    const share = part / 255;
    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = luminance(getComputedStyle(document.body).backgroundColor);
const contrast = (color) => {
  const [low, high] = [paper, luminance(color)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const least = (selector, property) => Math.min(...[...document.querySelectorAll(selector)]
  .map((one) => contrast(getComputedStyle(one)[property])));
const rect = (one) => one.getBoundingClientRect();
const charts = [...document.querySelectorAll('svg')].map((svg) => {
  const texts = [...svg.querySelectorAll('text')];
  return {
    texts: texts.length,
    outside: texts.filter((text) => !boxes(rect(svg), rect(text))).map((text) => text.textContent),
    overlapping: texts.filter((one, place) => texts.some((other, at) =>
      at > place && overlap(rect(one), rect(other)))).map((text) => text.textContent),
    lines: [...svg.querySelectorAll('.line')].map((line) => rect(line).width > 20),
    label: svg.getAttribute('aria-label'),
  };
});
const source = document.documentElement.outerHTML.replace(/<script>[^]*<\/script>/, '');
const seen = {
  charts,
  paper,
  text: Math.min(contrast(getComputedStyle(document.body).color), least('svg text', 'fill')),
  line: Math.min(least('.line.series-0', 'stroke'), least('.line.series-1', 'stroke')),
  loads: performance.getEntriesByType('resource').length,
  asks: /(src|href|url\(|@import|https?:\/\/(?!127))/.test(source),
  rows: document.querySelectorAll('tbody tr').length,
  scrolls: document.documentElement.scrollWidth > innerWidth,
};
const pre = document.createElement('pre');
pre.id = 'seen';
pre.textContent = JSON.stringify(seen).replaceAll('<', '\\u003c').replaceAll('&', '\\u0026');
document.body.append(pre);
</script>"#;

/// The browser to look with; says aloud when there is none.
fn browser() -> Option<&'static str> {
    let answers = |name: &&str| {
        let asked = Command::new(name).arg("--version").output();
        asked.is_ok_and(|output| output.status.success())
    };
    let found = ["chromium-headless-shell", "chromium"].into_iter().find(answers);
    if found.is_none() {
        println!("SKIPPED: no Chromium; ./test installs one where it may");
    }
    found
}

/// What the page looks like in a window of a width, in the colours of the day or of the night.
fn look(browser: &str, page: &Path, width: u32, is_dark: bool) -> Value {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},1500"))
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!is_dark)))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let seen =
        shown.split_once("<pre id=\"seen\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (seen, _) = seen.unwrap_or_else(|| panic!("no look taken: {shown}"));
    serde_json::from_str(&seen.replace("&gt;", ">")).unwrap()
}

/// The page of a short run that is told so much more.
async fn page(more: &str) -> String {
    let bus = Bus::start(Flaw::None).await;
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("a<b>&c.html");
    let args = format!(
        "bench --url {} --kubeconfig {} --connections 4 --warm-up 20ms {more} --html {}",
        bus.publish_url(),
        bus.kubeconfig,
        page.display()
    );
    let ended = run(&args.split_whitespace().collect::<Vec<_>>(), "").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    std::fs::read_to_string(&page).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_plot_has_a_key_to_each_of_its_lines() {
    for (more, lines) in [
        ("--events 50 --rate 1000", &[2, 2, 2][..]),
        ("--events 50 --mode publish", &[2, 1, 1]),
        ("--events 50 --find-rate --p99 1h --rate 1000000", &[2]),
    ] {
        let html = page(more).await;
        let plots: Vec<_> = html.split("<figure>").skip(1).collect();
        let count = |what| plots.iter().map(|plot| plot.matches(what).count()).collect::<Vec<_>>();
        assert_eq!(count("class=\"line "), lines, "{more}: {html}");
        assert_eq!(count("class=\"key "), lines, "{more}: {html}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_whole_and_readable_in_light_and_dark() {
    let Some(browser) = browser() else { return };
    for (more, charts) in
        [("--duration 1s --rate 300", 3), ("--events 50 --find-rate --p99 1h --rate 1000000", 1)]
    {
        let html = page(more).await;
        assert!(html.contains("a&lt;b&gt;&amp;c.html"), "the command is shown as it was given");
        assert!(html.contains("cores of"), "{html}");
        let directory = tempfile::tempdir().unwrap();
        // As a document of XML: whatever is opened is closed.
        let looking = directory.path().join("looking.xhtml");
        let as_xml =
            html.replace("<html lang", "<html xmlns=\"http://www.w3.org/1999/xhtml\" lang");
        let as_xml = as_xml.replace("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ");
        let script = LOOK.replace("<script>", "<script><![CDATA[");
        let script = script.replace("</script>", "]]></script>");
        std::fs::write(&looking, as_xml.replace("</body>", &format!("{script}</body>"))).unwrap();
        look(browser, &looking, 900, false);

        let looking = directory.path().join("looking.html");
        std::fs::write(&looking, html.replace("</body>", &format!("{LOOK}</body>"))).unwrap();
        let light = look(browser, &looking, 900, false);
        let dark = look(browser, &looking, 900, true);
        assert!(
            light["paper"].as_f64() > Some(0.8) && dark["paper"].as_f64() < Some(0.1),
            "{dark}"
        );
        for seen in [&light, &dark, &look(browser, &looking, 420, false)] {
            check(seen, charts);
        }
    }
}

fn check(seen: &Value, expected: usize) {
    let charts = seen["charts"].as_array().unwrap();
    assert!(charts.len() == expected && seen["rows"].as_u64() >= Some(2), "{seen}");
    for chart in charts {
        assert!(chart["texts"].as_u64() > Some(6), "{chart}");
        assert_eq!(chart["lines"], serde_json::json!([true, true]), "{chart}");
        assert_eq!(chart["outside"], serde_json::json!([]), "{chart}");
        assert_eq!(chart["overlapping"], serde_json::json!([]), "{chart}");
        assert!(chart["label"].as_str().is_some_and(|label| !label.is_empty()), "{chart}");
    }
    // The least that text, and what is not text, need to be told from their ground (WCAG 2).
    assert!(seen["text"].as_f64() >= Some(4.5), "{seen}");
    assert!(seen["line"].as_f64() >= Some(3.0), "{seen}");
    assert_eq!((&seen["loads"], &seen["asks"]), (&0.into(), &false.into()), "{seen}");
    assert_eq!(seen["scrolls"], false, "{seen}");
}
