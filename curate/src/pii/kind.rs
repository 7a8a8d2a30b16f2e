//! What private data is called: in settings, in counts, in the text that replaces it.

use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($variant:ident $name:literal $upper:literal $doc:literal;)*) => {
        /// A kind of private data. Where two findings are of one length, the kind named first here wins: from the most
        /// to the least specific.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $(#[doc = $doc] #[serde(rename = $name)] $variant,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in settings and reports, such as `us_ssn`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What replaces a redacted value: the name in capitals between angle brackets, such as `<US_SSN>`.
            #[must_use]
            pub const fn placeholder(self) -> &'static str {
                match self { $(Self::$variant => concat!("<", $upper, ">"),)* }
            }

            /// The reason of a document that is dropped for it, such as `pii.us_ssn`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => concat!("pii.", $name),)* }
            }
        }
    };
}

kinds! {
    PrivateKey "private_key" "PRIVATE_KEY" "A PEM block with a private key, OpenSSH's and PGP's too.";
    Jwt "jwt" "JWT" "A JSON web token whose header names its algorithm (RFC 7519).";
    AwsAccessKeyId "aws_access_key_id" "AWS_ACCESS_KEY_ID" "An AWS access key id.";
    AwsSecretKey "aws_secret_key" "AWS_SECRET_KEY" "An AWS secret access key: named so, or shortly after an access key id.";
    GithubToken "github_token" "GITHUB_TOKEN" "A GitHub token; the classic ones with their checksum.";
    GoogleApiKey "google_api_key" "GOOGLE_API_KEY" "A Google API key.";
    SlackToken "slack_token" "SLACK_TOKEN" "A Slack token.";
    StripeKey "stripe_key" "STRIPE_KEY" "A secret or restricted Stripe key.";
    ServiceToken "service_token" "SERVICE_TOKEN" "A token of GitLab, Hugging Face, npm, PyPI, OpenAI, Anthropic or SendGrid.";
    Email "email" "EMAIL" "An e-mail address.";
    Iban "iban" "IBAN" "An international bank account number (ISO 13616).";
    Card "card" "CARD" "A payment card number.";
    ItCodiceFiscale "it_codice_fiscale" "IT_CODICE_FISCALE" "An Italian codice fiscale.";
    CnResidentId "cn_resident_id" "CN_RESIDENT_ID" "A Chinese resident identity number.";
    FrNir "fr_nir" "FR_NIR" "A French NIR (numéro de sécurité sociale).";
    FiHetu "fi_hetu" "FI_HETU" "A Finnish henkilötunnus.";
    BrCpf "br_cpf" "BR_CPF" "A Brazilian CPF.";
    BeNationalNumber "be_national_number" "BE_NATIONAL_NUMBER" "A Belgian national register number.";
    SePersonnummer "se_personnummer" "SE_PERSONNUMMER" "A Swedish personnummer or samordningsnummer.";
    PlPesel "pl_pesel" "PL_PESEL" "A Polish PESEL.";
    DeSteuerId "de_steuer_id" "DE_STEUER_ID" "A German tax identification number.";
    EsDni "es_dni" "ES_DNI" "A Spanish DNI or NIE.";
    InAadhaar "in_aadhaar" "IN_AADHAAR" "An Indian Aadhaar number.";
    NlBsn "nl_bsn" "NL_BSN" "A Dutch burgerservicenummer.";
    UkNhs "uk_nhs" "UK_NHS" "A British NHS number.";
    UkNino "uk_nino" "UK_NINO" "A British national insurance number.";
    CaSin "ca_sin" "CA_SIN" "A Canadian social insurance number.";
    AuTfn "au_tfn" "AU_TFN" "An Australian tax file number.";
    UsSsn "us_ssn" "US_SSN" "A US social security number.";
    Ip "ip" "IP" "An IPv4 or IPv6 address.";
    Phone "phone" "PHONE" "A telephone number.";
    Secret "secret" "SECRET" "A value of high entropy given to a name such as `password` or `api_key`.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_placeholders_and_codes_agree() {
        for &kind in Kind::ALL {
            assert_eq!(kind.placeholder(), format!("<{}>", kind.name().to_uppercase()));
            assert_eq!(kind.code(), format!("pii.{}", kind.name()));
            assert_eq!(
                serde_json::to_string(&kind).unwrap(),
                format!("\"{}\"", kind.name())
            );
        }
    }
}
