//! Definitions of the custom resources that the chart uses, as their projects publish them in Go modules.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::go;
use crate::helm::documents;

/// Module and version, and the files in it.
const DEFINITIONS: [(&str, &str, &[&str]); 2] = [
    (
        "github.com/prometheus-operator/prometheus-operator@v0.88.0",
        "example/prometheus-operator-crd",
        &[
            "monitoring.coreos.com_podmonitors.yaml",
            "monitoring.coreos.com_prometheusrules.yaml",
            "monitoring.coreos.com_servicemonitors.yaml",
        ],
    ),
    ("sigs.k8s.io/gateway-api@v1.3.0", "config/crd/standard", &["gateway.networking.k8s.io_httproutes.yaml"]),
];

/// The definitions; downloads their modules if Go's cache does not have them.
///
/// # Errors
/// When a module cannot be had.
pub fn definitions() -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for path in files()? {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        found.extend(documents(&text).with_context(|| path.display().to_string())?);
    }
    Ok(found)
}

/// Why they cannot be had on this machine; `None` if they probably can.
pub(crate) fn missing() -> Option<String> {
    go::missing()
}

/// Downloads them.
pub(crate) fn prepare() -> Result<()> {
    files().map(drop)
}

fn files() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (module, folder, names) in DEFINITIONS {
        let folder = go::module(module)?.join(folder);
        found.extend(names.iter().map(|name| folder.join(name)));
    }
    Ok(found)
}
