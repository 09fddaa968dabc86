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
        let package = find(series, |name| apt.versions(name))?;
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

/// Follows the meta package to the package that has the kernel: an image on older suites, a "binary" on newer ones.
fn find(series: Series, versions: impl Fn(&str) -> Vec<Package>) -> Result<Package> {
    let meta = "linux-image-cloud-amd64";
    let offered = versions(meta);
    let of_series = |package: &&Package| package.version.starts_with(&format!("{series}."));
    let Some(mut package) = offered.iter().find(of_series).cloned() else {
        let offered: Vec<_> = offered.iter().map(|package| package.version.as_str()).collect();
        bail!("{meta} of series {series} is not offered any more, only {}", offered.join(", "));
    };
    // Two steps are all there are today; the bound is for a loop.
    for _ in 0..4 {
        let holder = |name: &&String| {
            ["linux-image-", "linux-binary-"].iter().any(|start| name.starts_with(start))
                && name.ends_with("-cloud-amd64")
        };
        let Some(next) = package.depends.iter().find(holder) else {
            return Ok(package);
        };
        package = versions(next)
            .into_iter()
            .find(of_series_owned(series))
            .with_context(|| format!("{next} is named by {} but not offered", package.name))?;
    }
    bail!("{meta} leads from package to package without end")
}

fn of_series_owned(series: Series) -> impl Fn(&Package) -> bool {
    move |package| package.version.starts_with(&format!("{series}."))
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
    fn the_meta_package_is_followed_to_the_kernel_of_the_series() {
        let versions = |name: &str| match name {
            "linux-image-cloud-amd64" => vec![
                package(name, "7.2.12-1", &["linux-base-cloud-amd64", "linux-image-7.2.12-cloud-amd64"]),
                package(name, "6.1.9-1", &["linux-image-6.1.0-cloud-amd64"]),
            ],
            "linux-image-7.2.12-cloud-amd64" => {
                vec![package(name, "7.2.12-1", &["linux-binary-7.2.12-cloud-amd64", "linux-modules-7.2.12"])]
            }
            _ => vec![package(name, if name.contains("6.1") { "6.1.9-1" } else { "7.2.12-1" }, &["kmod"])],
        };
        assert_eq!(find(Series::V7_2, versions).unwrap().name, "linux-binary-7.2.12-cloud-amd64");
        assert_eq!(find(Series::V6_1, versions).unwrap().name, "linux-image-6.1.0-cloud-amd64");
        let error = find(Series::V6_12, versions).unwrap_err().to_string();
        assert!(error.contains("only 7.2.12-1, 6.1.9-1"), "{error}");
    }

    #[test]
    fn series_are_parsed() {
        assert_eq!("6.12".parse(), Ok(Series::V6_12));
        assert!("6.2".parse::<Series>().unwrap_err().contains("6.1, 6.12, 7.2"));
    }
}
