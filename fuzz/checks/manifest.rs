//! What must hold for any manifest: the fuzz target `manifest` and a test of the normal suite check it.

use vumi_api::manifest::{Target, load};

/// Loading never fails but with findings, finds the same at every reading, and a valid document stays valid as JSON.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for target in [Target::Local, Target::Cluster] {
        let first = load(&[("fuzz.yaml", text)], target);
        let again = load(&[("fuzz.yaml", text)], target);
        assert_eq!(first.resources, again.resources);
        assert_eq!(first.findings.len(), again.findings.len());
        for loaded in &first.resources {
            let json = loaded.document().to_string();
            let reread = load(&[("fuzz.json", json.as_str())], target);
            assert!(!reread.has_errors(), "{json}: {:?}", reread.findings);
        }
    }
}
