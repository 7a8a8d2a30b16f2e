//! Which private data is searched for, and what happens to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Kind;

/// What happens to a kind of private data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Not searched for.
    Off,
    /// Counted, and left where it is.
    Tag,
    /// Replaced by the kind's placeholder.
    Redact,
    /// The document is dropped.
    Drop,
}

/// The table `pii` of a spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What happens to each kind that `policies` does not name. Default: `redact`.
    pub policy: Policy,
    /// Whether private, loopback, documentation and other addresses that lead nowhere in the internet count as IP
    /// addresses (IANA's special-purpose registries). Default: they do not.
    pub private_addresses: bool,
    /// Entropy from which on a value given to a name such as `password` counts as a secret, in bits per character of
    /// the value itself (Shannon). Default: 3.0, detect-secrets' bound of hexadecimal strings.
    pub secret_entropy: f64,
    /// What happens to single kinds.
    pub policies: BTreeMap<Kind, Policy>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::Redact,
            private_addresses: false,
            secret_entropy: 3.0,
            policies: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// What happens to `kind`.
    #[must_use]
    pub fn policy(&self, kind: Kind) -> Policy {
        self.policies.get(&kind).copied().unwrap_or(self.policy)
    }

    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// Names the field, its value and the bound.
    pub fn check(&self) -> Result<(), String> {
        // A byte has 8 bits; a NaN is in no range.
        if (0.0..=8.0).contains(&self.secret_entropy) {
            return Ok(());
        }
        Err(format!(
            "pii.secret_entropy = {}: must be from 0 to 8",
            self.secret_entropy
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_reads_back_and_says_what_is_wrong() {
        let text = "policy = \"tag\"\n[policies]\nus_ssn = \"drop\"\nphone = \"off\"\n";
        let settings: Settings = toml::from_str(text).unwrap();
        assert_eq!(settings.policy(Kind::UsSsn), Policy::Drop);
        assert_eq!(settings.policy(Kind::Phone), Policy::Off);
        assert_eq!(settings.policy(Kind::Email), Policy::Tag);
        assert_eq!(
            toml::from_str::<Settings>(&toml::to_string(&settings).unwrap()).unwrap(),
            settings
        );
        assert!(toml::from_str::<Settings>("polices = {}").is_err());
        assert!(toml::from_str::<Settings>("[policies]\nshoe_size = \"tag\"").is_err());
        for wrong in [-0.1, 8.5, f64::NAN] {
            let settings = Settings {
                secret_entropy: wrong,
                ..Settings::default()
            };
            assert!(settings.check().unwrap_err().contains("pii.secret_entropy"));
        }
        Settings::default().check().unwrap();
    }
}
