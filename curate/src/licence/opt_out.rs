//! Statements that a text is not to be mined or learned from.

use serde::{Deserialize, Serialize};

/// A statement in a header, a page's `robots` meta element, or a file such as `ai.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Directive {
    /// `noai` (DeviantArt, 2022), `noml`, `notrain`.
    Noai,
    /// `tdm-reservation: 1` (W3C community group's TDM reservation protocol), which Article 4(3) of the EU's directive
    /// 2019/790 asks for.
    TdmReservation,
    /// `train-ai=n` (IETF AI preferences), `ai-train=no` (Cloudflare's content signals).
    TrainAi,
    /// `Disallow: /` of an `ai.txt` or of `robots.txt` for the crawler that read it.
    Disallow,
    /// `noindex`, and `none`, which holds it.
    Noindex,
    /// `noarchive` and `nocache`.
    Noarchive,
}

impl Directive {
    /// Those that speak of machine learning or mining.
    pub(super) const LEARNING: [Self; 4] = [Self::Noai, Self::TdmReservation, Self::TrainAi, Self::Disallow];

    /// What one statement says, such as `noai` or `tdm-reservation: 1`, in lower case.
    fn read(statement: &str) -> Option<Self> {
        let (name, value) = match statement.split_once([':', '=']) {
            Some((name, value)) => (name.trim_end(), value.trim()),
            None => (statement, ""),
        };
        let yes = matches!(value, "" | "1" | "true" | "y" | "yes");
        let no = matches!(value, "0" | "false" | "n" | "no" | "disallow");
        match name {
            "noai" | "noml" | "notrain" | "no-train" | "nomachinelearning" if yes => Some(Self::Noai),
            "tdm-reservation" | "tdmrep" if yes => Some(Self::TdmReservation),
            "train-ai" | "ai-train" | "train-genai" if no => Some(Self::TrainAi),
            "disallow" if matches!(value, "/" | "*" | "/*") => Some(Self::Disallow),
            "noindex" | "none" if yes => Some(Self::Noindex),
            "noarchive" | "nocache" if yes => Some(Self::Noarchive),
            _ => None,
        }
    }
}

/// The first statement of `text` that is among `honoured`.
pub(super) fn find<'a>(text: &'a str, honoured: &[Directive]) -> Option<&'a str> {
    text.split([',', ';', '\n']).map(str::trim).find_map(|part| {
        let mut statement = part;
        loop {
            let lower = statement.to_ascii_lowercase();
            if Directive::read(&lower).is_some_and(|directive| honoured.contains(&directive)) {
                return Some(statement);
            }
            // Behind the header's name, or the crawler's: `X-Robots-Tag: noai`, `content-usage: train-ai=n`.
            statement = statement.split_once(':')?.1.trim();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_read_wherever_they_stand() {
        for (text, statement) in [
            ("noai", "noai"),
            ("NoAI, noimageai", "NoAI"),
            ("X-Robots-Tag: noindex, noai", "noai"),
            ("X-Robots-Tag: otherbot: noai", "noai"),
            ("tdm-reservation: 1", "tdm-reservation: 1"),
            ("TDM-Reservation=1", "TDM-Reservation=1"),
            ("tdm-reservation", "tdm-reservation"),
            ("Content-Usage: train-ai=n", "train-ai=n"),
            ("Content-Signal: search=yes, ai-train=no", "ai-train=no"),
            ("User-Agent: *\nDisallow: /", "Disallow: /"),
        ] {
            assert_eq!(find(text, &Directive::LEARNING), Some(statement), "{text}");
        }
        for text in [
            "",
            "noimageai",
            "noindex",
            "tdm-reservation: 0",
            "train-ai=y",
            "ai-train=yes",
            "Disallow:",
            "Disallow: /private/",
            "index, follow",
            "noairplanes",
            "User-Agent: noaibot",
        ] {
            assert_eq!(find(text, &Directive::LEARNING), None, "{text}");
        }
        assert_eq!(find("X-Robots-Tag: none", &[Directive::Noindex]), Some("none"));
        assert_eq!(find("noai", &[Directive::Noindex]), None);
        // Many colons are looked at one by one, and that ends.
        assert_eq!(find(&"a:".repeat(1000), &Directive::LEARNING), None);
    }
}
