//! E-mail, phone, cards, national ids, keys: found, validated, redacted.
//!
//! A [`Detector`] looks closer only where something can be: at `@`, `:` and `=`, where digits begin, and at prefixes of
//! tokens. What it then finds has passed the check that its kind has: a checksum, the ranges that an authority or an
//! issuer gives, or entropy. Numbers that would pass by chance too often need a word near them, up to 64 bytes before or
//! 24 behind, that says what they are:
//!
//! | needs a word | needs none |
//! |---|---|
//! | cards of 13, 14, 17 or 18 digits in one | cards of 15, 16 or 19 digits; grouped as printed |
//! | SSN with spaces or in one | SSN with hyphens |
//! | NINO in one | NINO in pairs with spaces |
//! | personnummer, CPF, rijksregisternummer in one | the same as officially written |
//! | DNI | NIE, codice fiscale, henkilötunnus, NIR, resident id |
//! | NHS, Steuer-ID, BSN, PESEL, Aadhaar, SIN, TFN | IBAN |
//! | IPv4 of four numbers below 32 | other IP addresses |
//! | national telephone numbers of no telling form | `+` and a country's code; telling national forms |
//!
//! Digits are those of ASCII; addresses written to hide from machines (`joe at example dot com`) are not found. Nothing
//! here holds or shows what was found: a [`Found`] is a kind and a range.

mod address;
mod assignment;
mod card;
mod checksum;
mod context;
mod detector;
mod groups;
mod kind;
mod letters;
mod national;
mod phone;
mod redact;
mod settings;
mod tokens;

pub use detector::{Detector, DetectorError, Found};
pub use kind::Kind;
pub use redact::{Cleaned, Counts, redact, verdict};
pub use settings::{Policy, Settings};
