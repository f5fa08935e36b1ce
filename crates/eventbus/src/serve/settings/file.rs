//! The settings file, and what is wrong with it: told by the place, without the values, of which
//! one may be a password.

use std::path::Path;

use toml::de::Error;

use super::Given;
use crate::cli::Fault;

impl Given {
    /// The settings of a file.
    pub(super) fn read(path: &Path) -> Result<Self, Fault> {
        let wrong = |why: String| {
            Fault::Usage(format!("the settings file {} cannot be used: {why}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        toml::from_str(&text).map_err(|error| wrong(complaint(&text, &error)))
    }
}

/// Where it is wrong, and why. (Written as it is, the error would quote the line.)
fn complaint(text: &str, error: &Error) -> String {
    let why = error.message();
    // What is of a wrong type is quoted between these two.
    let why = match (why.split_once(": "), why.rsplit_once(", expected ")) {
        (Some((wrong @ ("invalid type" | "invalid value"), _)), Some((_, wanted))) => {
            format!("{wrong}, expected {wanted}")
        }
        _ => why.to_owned(),
    };
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return why };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|char| *char != '\n').count() + 1;
    format!("line {line}, column {column}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_told_and_no_value() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eventbus.toml");
        for (wrong, complaint) in [
            ("nats_password = \"geheim", "line 2, column 24: invalid basic string"),
            ("nats_password = geheim", "line 2, column 17: string values must be quoted"),
            ("nats_password = \"a\"geheim", "line 2, column 20: "),
            ("nats_password = \"\"\"\ngeheim", "invalid multi-line basic string"),
            ("nats_pasword = \"geheim\"", "line 2, column 1: unknown field `nats_pasword`"),
            ("age_s = \"geheim\"", "line 2, column 9: invalid type, expected "),
            ("nats_token = [\"geheim\"]", "line 2, column 14: invalid type, expected a string"),
            (
                "nats_url = \"nats://me:geheim, expected @a\"",
                "line 2, column 12: invalid type, expected a sequence",
            ),
        ] {
            std::fs::write(&path, format!("broker = \"nats\"\n{wrong}\n")).unwrap();
            let Err(Fault::Usage(told)) = Given::read(&path) else { panic!("{wrong} was taken") };
            assert!(told.contains(complaint), "{wrong}: {told}");
            assert!(!told.contains("geheim") && !told.contains('\n'), "{told}");
        }
    }
}
