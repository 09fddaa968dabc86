//! A container image as one archive, which a runtime imports without a registry: the OCI image layout in a tar, with
//! one layer of programs.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The platform of everything that we build.
const ARCHITECTURE: &str = "amd64";

/// The archive of an image: its name (`HOST/NAME:TAG`), and its programs by their paths without the leading slash,
/// the first of which is the entrypoint. The same programs make the same bytes.
pub fn archive(name: &str, programs: &[(&str, &Path)]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, from) in programs {
        let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        append(&mut layer, path, 0o755, &content)?;
    }
    let layer = layer.into_inner().context("ending the layer")?;
    let (entrypoint, _) = programs.first().context("an image without a program")?;
    let config = json!({
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": { "Entrypoint": [format!("/{entrypoint}")], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut named = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    named["platform"] = json!({ "architecture": ARCHITECTURE, "os": "linux" });
    // containerd takes the whole name from its own annotation; podman and others from the OCI's.
    named["annotations"] =
        json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [named] });

    let mut image = tar::Builder::new(Vec::new());
    append(&mut image, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut image, "index.json", 0o644, index.to_string().as_bytes())?;
    for blob in [&manifest, &config, &layer] {
        append(&mut image, &format!("blobs/sha256/{}", hex(blob)), 0o644, blob)?;
    }
    image.into_inner().context("ending the image")
}

/// A blob as others refer to it.
fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(blob))
}

fn hex(blob: &[u8]) -> String {
    Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn append(to: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    to.append_data(&mut header, path, content).with_context(|| format!("putting {path} into an archive"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use super::*;

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (path, content)
        });
        entries.collect()
    }

    #[test]
    fn an_image_leads_from_its_name_to_its_programs() {
        let program = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(program.path(), "#!x").unwrap();
        let programs = [("bin/tool", program.path())];
        let image = archive("example.org/tool:1", &programs).unwrap();
        assert_eq!(archive("example.org/tool:1", &programs).unwrap(), image, "the same bytes");

        let files_of_image = files(&image);
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let blob = &files_of_image[&format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap())];
            assert_eq!(
                (descriptor["size"].as_u64(), self::digest(blob)),
                (Some(blob.len() as u64), digest.into())
            );
            blob.clone()
        };
        let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let index = parsed(&files_of_image["index.json"]);
        let named = &index["manifests"][0];
        assert_eq!(named["annotations"]["io.containerd.image.name"], "example.org/tool:1");
        let manifest = parsed(&blob(named));
        let config = parsed(&blob(&manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/tool"]));
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"], json!([self::digest(&layer)]));
        assert_eq!(files(&layer), BTreeMap::from([("bin/tool".to_owned(), b"#!x".to_vec())]));
    }

    #[test]
    fn the_digest_is_sha_256() {
        // Of "abc", from FIPS 180-4's examples.
        assert_eq!(hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
