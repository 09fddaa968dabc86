//! The kernels that everything is held against: Debian's cloud kernels, the newest of each series.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cache::Cache,
    debian::{Apt, Package, Suite},
};

/// A series of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// The oldest that is supported.
    V6_1,
    /// What most nodes run.
    V6_12,
    /// The newest.
    V7_2,
}

impl Series {
    /// All, oldest first.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_2];

    fn suite(self) -> Suite {
        match self {
            Self::V6_1 | Self::V6_12 => Suite::Bookworm,
            Self::V7_2 => Suite::TrixieBackports,
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        })
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|series| series.to_string() == text);
        known.ok_or_else(|| {
            format!("the kernels are {}", Self::ALL.map(|series| series.to_string()).join(", "))
        })
    }
}

/// The bootable image of a series.
pub fn image(cache: &Cache, series: Series) -> Result<PathBuf> {
    let entry = cache.entry(&format!("linux-{series}"), |dir| {
        let apt = Apt::open(cache, series.suite(), "apt (for Debian's kernels)")?;
        let package = find(series, &apt.matching(IMAGES), |name| apt.versions(name))?;
        let packed = dir.join("package");
        let version = format!("{}={}", package.name, package.version);
        apt.fetch(
            &format!("Linux {} (about 100 MB)", package.version),
            std::slice::from_ref(&version),
            &packed,
        )?;
        let image = find_image(&packed).with_context(|| format!("{version} holds no vmlinuz"))?;
        fs::rename(image, dir.join("vmlinuz")).context("keeping the kernel image")?;
        fs::write(dir.join("version"), version + "\n").context("noting the version")?;
        fs::remove_dir_all(&packed).context("removing the unpacked package")
    })?;
    Ok(entry.join("vmlinuz"))
}

/// What kernels are called. The meta package names the newest only; those before it stay in the archive for a while.
const IMAGES: &str = "linux-image-.*-cloud-amd64";

/// The package with the newest kernel of the series: an image on older suites; on newer ones the "binary" that the
/// image depends on.
fn find(series: Series, images: &[Package], versions: impl Fn(&str) -> Vec<Package>) -> Result<Package> {
    let of_series = images.iter().filter(|package| package.version.starts_with(&format!("{series}.")));
    let Some(image) = of_series.max_by_key(|package| numbers(&package.version)) else {
        let offered: Vec<_> = images.iter().map(|package| package.version.as_str()).collect();
        bail!("no kernel of series {series} is offered any more, only {}", offered.join(", "));
    };
    let binary = |name: &&String| name.starts_with("linux-binary-") && name.ends_with("-cloud-amd64");
    match image.depends.iter().find(binary) {
        None => Ok(image.clone()),
        Some(name) => {
            let offered = versions(name).into_iter().find(|package| package.version == image.version);
            offered.with_context(|| format!("{name} is named by {} but not offered", image.name))
        }
    }
}

/// A version's numbers in their order, by which the versions of one series are compared.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// `boot/vmlinuz-*`, or `usr/lib/modules/*/vmlinuz`.
fn find_image(package: &Path) -> Option<PathBuf> {
    let entries =
        |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let in_boot = entries(package.join("boot"))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")));
    in_boot.or_else(|| {
        entries(package.join("usr/lib/modules")).map(|dir| dir.join("vmlinuz")).find(|path| path.is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, depends: &[&str]) -> Package {
        let depends = depends.iter().map(|&name| name.to_owned()).collect();
        Package { name: name.into(), version: version.into(), depends }
    }

    #[test]
    fn the_newest_kernel_of_the_series_is_found_though_newer_series_are_offered() {
        let image = |version: &str, depends: &[&str]| {
            package(&format!("linux-image-{version}-cloud-amd64"), &format!("{version}-1~bpo13+1"), depends)
        };
        let images = [
            image("7.2.9", &["linux-binary-7.2.9-cloud-amd64"]),
            image("7.2.12", &["linux-base-cloud-amd64", "linux-binary-7.2.12-cloud-amd64"]),
            image("7.3.4", &["linux-binary-7.3.4-cloud-amd64"]),
            image("6.1.9", &["kmod", "linux-base"]),
        ];
        let versions = |name: &str| match name {
            "linux-binary-7.2.12-cloud-amd64" => vec![package(name, "7.2.12-1~bpo13+1", &["kmod"])],
            _ => vec![],
        };
        let found = |series| find(series, &images, versions).map(|package| package.name);
        assert_eq!(found(Series::V7_2).unwrap(), "linux-binary-7.2.12-cloud-amd64");
        assert_eq!(found(Series::V6_1).unwrap(), "linux-image-6.1.9-cloud-amd64");
        let error = found(Series::V6_12).unwrap_err().to_string();
        assert!(error.contains("only 7.2.9-1~bpo13+1, "), "{error}");
        let error = find(Series::V7_2, &images, |_| vec![]).unwrap_err().to_string();
        assert!(error.contains("linux-binary-7.2.12-cloud-amd64 is named by"), "{error}");
    }

    #[test]
    fn series_are_parsed() {
        assert_eq!("6.12".parse(), Ok(Series::V6_12));
        assert!("6.2".parse::<Series>().unwrap_err().contains("6.1, 6.12, 7.2"));
    }
}
