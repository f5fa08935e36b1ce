//! A page of metrics, as a bus wrote it in Prometheus' text format.

use std::collections::HashMap;

/// What a scrape brought.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The samples of each family, in their order.
    samples: HashMap<String, Vec<Sample>>,
}

/// One line.
#[derive(Debug)]
pub(super) struct Sample {
    labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl Page {
    /// Reads a page. What is no sample is stepped over: a newer bus may say more.
    pub(super) fn parse(text: &str) -> Self {
        let mut samples: HashMap<String, Vec<Sample>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, sample)) = sample(line) {
                samples.entry(name.to_owned()).or_default().push(sample);
            }
        }
        Self { samples }
    }

    /// Every series of this name.
    pub(super) fn all(&self, name: &str) -> &[Sample] {
        self.samples.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a series without labels.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.all(name).first().map(|sample| sample.value)
    }

    /// All series of this name together; 0 where there is none.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.all(name).iter().map(|sample| sample.value).sum()
    }

    /// Those together whose label is so.
    pub(super) fn sum_where(&self, name: &str, label: &str, is_so: impl Fn(&str) -> bool) -> f64 {
        let found = self.all(name).iter().filter(|sample| is_so(sample.label(label)));
        found.map(|sample| sample.value).sum()
    }
}

impl Sample {
    /// What a label says; nothing where there is no such label.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| label == name).map_or("", |(_, word)| word)
    }
}

/// Reads `name{label="word"} value`.
fn sample(line: &str) -> Option<(&str, Sample)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.trim_start_matches(',').split_once("=\"")?;
            let (word, after) = word(after)?;
            labels.push((label.to_owned(), word));
            rest = after;
        }
        rest = &rest[1..];
    }
    // A time may stand behind the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, Sample { labels, value }))
}

/// Reads up to the quotation mark that ends a word, and gives what stands behind it.
fn word(text: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((word, &text[at + 1..])),
            (_, '\\') => match characters.next()?.1 {
                'n' => word.push('\n'),
                escaped => word.push(escaped),
            },
            (_, character) => word.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samples_are_read() {
        let page = Page::parse(
            "# HELP a A.\n# TYPE a counter\na_total 7\nb{x=\"1\",y=\"a \\\"b\\\\\\n}\"} 2.5\n\
             b{x=\"2\",y=\"\"} 0.5 1700000000\nc{le=\"+Inf\"} +Inf\nnonsense\nd{\ne 1e3\n",
        );
        assert_eq!((page.value("a_total"), page.value("e")), (Some(7.0), Some(1e3)));
        assert_eq!((page.value("nonsense"), page.value("d")), (None, None));
        assert_eq!(page.all("b")[0].label("y"), "a \"b\\\n}");
        assert_eq!((page.all("b")[1].label("y"), page.all("b")[1].label("z")), ("", ""));
        assert_eq!((page.sum("b"), page.sum_where("b", "x", |word| word == "2")), (3.0, 0.5));
        assert_eq!(page.value("c"), Some(f64::INFINITY));
    }

    proptest! {
        #[test]
        fn nothing_that_a_server_says_is_too_strange(text in "[a-z{}=\",\\\\ \n0-9é]{0,80}") {
            Page::parse(&text);
        }
    }
}
