//! A kubeconfig with which a client can be made on a machine that has no certificates of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

/// Writes one for this server, with an authority that has signed nothing, to a directory. Returns its path.
pub fn write(dir: &Path, server: &str) -> io::Result<PathBuf> {
    let (path, authority) = (dir.join("kubeconfig"), dir.join("authority.pem"));
    let keys = rcgen::KeyPair::generate().map_err(io::Error::other)?;
    let certificate = rcgen::CertificateParams::default().self_signed(&keys).map_err(io::Error::other)?;
    fs::write(&authority, certificate.pem())?;
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": server, "certificate-authority": authority } }],
        "users": [{ "name": "u", "user": { "token": "of nobody" } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    });
    fs::write(&path, kubeconfig.to_string())?;
    Ok(path)
}
