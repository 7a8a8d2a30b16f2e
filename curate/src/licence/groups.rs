//! Groups of licences: what each holds.

/// Every group that `allow` and `deny` may name.
pub const GROUPS: &[&str] = &[
    "public-domain",
    "permissive",
    "copyleft",
    "non-commercial",
    "no-derivatives",
    "proprietary",
];

/// Members of a group: SPDX ids, or where one ends in `*`, all that begin so. `None` if there is no such group.
///
/// - `public-domain`: dedications and statements that nothing is reserved.
/// - `permissive`: what asks for no more than a notice or attribution.
/// - `copyleft`: what asks derived works to be under it too, strong or weak, share-alike among them.
/// - `non-commercial`, `no-derivatives`: what keeps commercial use or changes back; some are copyleft too.
/// - `proprietary`: statements that everything is reserved, npm's `UNLICENSED` among them.
#[must_use]
pub fn members(group: &str) -> Option<&'static [&'static str]> {
    Some(match group {
        "public-domain" => &[
            "CC0-1.0",
            "CC-PDDC",
            "CC-PDM-1.0",
            "PDDL-1.0",
            "Unlicense",
            "Unlicense-libtelnet",
            "Unlicense-libwhirlpool",
            "SAX-PD",
            "SAX-PD-2.0",
            "NIST-PD",
            "NIST-PD-fallback",
            "NCBI-PD",
            "NTIA-PD",
            "ANTLR-PD",
            "ANTLR-PD-fallback",
            "blessing",
            "libselinux-1.0",
            "DL-DE-ZERO-2.0",
            "LicenseRef-public-domain",
        ],
        "permissive" => &[
            "0BSD",
            "AAL",
            "AFL-*",
            "AML",
            "Apache-*",
            "Artistic-*",
            "BSD-1-Clause",
            "BSD-2-Clause*",
            "BSD-3-Clause*",
            "BSD-4-Clause*",
            "BSD-4.3RENO",
            "BSD-4.3TAHOE",
            "BSD-Source-Code",
            "BSL-1.0",
            "Beerware",
            "BlueOak-1.0.0",
            "Boehm-GC",
            "CC-BY-1.0",
            "CC-BY-2.*",
            "CC-BY-3.*",
            "CC-BY-4.0",
            "CDLA-Permissive-*",
            "CECILL-B",
            "CERN-OHL-P-2.0",
            "CNRI-Python*",
            "ECL-*",
            "EFL-*",
            "FSFAP",
            "FSFUL",
            "FSFULLR",
            "FTL",
            "Fair",
            "HPND*",
            "ICU",
            "IJG",
            "ISC",
            "ISC-Veillard",
            "ImageMagick",
            "Info-ZIP",
            "JasPer-2.0",
            "Libpng",
            "MIT",
            "MIT-*",
            "MITNFA",
            "MS-PL",
            "MulanPSL-*",
            "NCSA",
            "NLOD-*",
            "NTP",
            "NTP-0",
            "NetCDF",
            "Net-SNMP",
            "Naumen",
            "ODC-By-1.0",
            "OGL-UK-*",
            "OGL-Canada-2.0",
            "OLDAP-2.8",
            "OpenSSL",
            "PHP-*",
            "PSF-2.0",
            "PostgreSQL",
            "Python-2.0*",
            "Qhull",
            "Ruby",
            "SGI-B-2.0",
            "SMLNJ",
            "SSH-OpenSSH",
            "Spencer-*",
            "StandardML-NJ",
            "TCL",
            "TU-Berlin-*",
            "UPL-1.0",
            "Unicode-3.0",
            "Unicode-DFS-*",
            "UnixCrypt",
            "Vim",
            "W3C*",
            "WTFPL",
            "X11*",
            "XFree86-1.1",
            "Xnet",
            "ZPL-*",
            "Zend-2.0",
            "Zlib",
            "bzip2-*",
            "curl",
            "etalab-2.0",
            "libpng-2.0",
            "libtiff",
            "zlib-acknowledgement",
        ],
        "copyleft" => &[
            "AGPL-*",
            "APSL-*",
            "Arphic-1999",
            "BSD-Protection",
            "CAL-1.0*",
            "CC-BY-SA-*",
            "CC-BY-NC-SA-*",
            "CC-SA-1.0",
            "CDDL-*",
            "CDLA-Sharing-1.0",
            "CECILL-1.*",
            "CECILL-2.*",
            "CECILL-C",
            "CERN-OHL-S-2.0",
            "CERN-OHL-W-2.0",
            "CPAL-1.0",
            "CPL-1.0",
            "D-FSL-1.0",
            "EPL-*",
            "EUPL-*",
            "ErlPL-1.1",
            "GFDL-*",
            "GPL-*",
            "IPL-1.0",
            "LAL-*",
            "LGPL-*",
            "LGPLLR",
            "LPL-*",
            "LiLiQ-R-1.1",
            "LiLiQ-Rplus-1.1",
            "Linux-man-pages-copyleft*",
            "MPL-*",
            "MS-RL",
            "NPL-*",
            "NPOSL-3.0",
            "ODbL-1.0",
            "OFL-*",
            "OSL-*",
            "Parity-*",
            "QPL-*",
            "RPL-*",
            "RPSL-1.0",
            "SISSL*",
            "SPL-1.0",
            "SSPL-1.0",
            "Sleepycat",
            "YPL-*",
            "copyleft-next-*",
        ],
        "non-commercial" => &["CC-BY-NC-*", "NCGL-UK-2.0", "PolyForm-Noncommercial-1.0.0"],
        "no-derivatives" => &["CC-BY-ND-*", "CC-BY-NC-ND-*"],
        "proprietary" => &["LicenseRef-proprietary"],
        _ => return None,
    })
}

/// Whether an entry, an id or a beginning followed by `*`, names `id`.
pub(super) fn names(entry: &str, id: &str) -> bool {
    match entry.strip_suffix('*') {
        Some(beginning) => id.starts_with(beginning),
        None => entry == id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdx::identifiers::LICENSES;

    #[test]
    fn members_are_licences() {
        for group in GROUPS {
            for entry in members(group).unwrap() {
                let known = LICENSES.iter().any(|licence| names(entry, licence.name));
                assert!(known || entry.starts_with("LicenseRef-"), "{group}: {entry}");
            }
        }
        assert_eq!(members("permissve"), None);
    }

    #[test]
    fn no_licence_is_in_two_groups_that_exclude_each_other() {
        let member = |group, id| members(group).unwrap().iter().any(|entry| names(entry, id));
        for licence in LICENSES {
            let groups: Vec<&str> = ["public-domain", "permissive", "copyleft"]
                .into_iter()
                .filter(|group| member(group, licence.name))
                .collect();
            assert!(groups.len() < 2, "{}: {groups:?}", licence.name);
        }
    }

    #[test]
    fn the_free_software_foundations_copyleft_is_copyleft() {
        let copyleft = members("copyleft").unwrap();
        // Weak ones and duties of notice that spdx counts in as well.
        let others = ["CECILL-B", "MS-PL", "xinetd"];
        for licence in LICENSES
            .iter()
            .filter(|l| l.flags & spdx::flags::IS_COPYLEFT != 0)
        {
            let named = copyleft.iter().any(|entry| names(entry, licence.name));
            assert_eq!(named, !others.contains(&licence.name), "{}", licence.name);
        }
    }
}
