//! The cache outside the checkout: entries that are either complete or not there.
//!
//! An entry is made in a temporary directory on the same file system, under a lock, and put in place by one rename.
//! Whoever dies half-way leaves only a temporary directory, which the next run that wants the entry removes.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};

/// The cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// How long this process has spent on making entries.
static MAKING: Mutex<Duration> = Mutex::new(Duration::ZERO);

/// Held while something in the cache is being changed. The kernel gives it back when the process ends in any way.
pub struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Cache {
    /// Opens (and makes) the cache: `$LOADLINE_CACHE`, else `$XDG_CACHE_HOME/loadline`, else `~/.cache/loadline`.
    pub fn open() -> Result<Self> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("LOADLINE_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("loadline")))
            .or_else(|| env::home_dir().map(|dir| dir.join(".cache/loadline")))
            .context("no place for the cache: set LOADLINE_CACHE, XDG_CACHE_HOME or HOME")?;
        Self::at(root)
    }

    /// Opens (and makes) a cache in a given directory.
    pub fn at(root: PathBuf) -> Result<Self> {
        let root = std::path::absolute(root)?;
        for dir in ["tmp", "locks"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).with_context(|| {
                format!("cannot make the cache directory {} (LOADLINE_CACHE moves it)", dir.display())
            })?;
        }
        Ok(Self { root })
    }

    /// The entry `name`, made by `make` in the (empty) directory that it is given if it is not there yet.
    pub fn entry(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let place = self.root.join(name);
        if place.exists() {
            return Ok(place);
        }
        let _lock = self.lock(name)?;
        if place.exists() {
            return Ok(place);
        }
        // Under the lock: any temporary directory of this name is a dead run's.
        let temporary = self.root.join("tmp").join(name);
        remove(&temporary)?;
        fs::create_dir_all(&temporary).with_context(|| format!("cannot make {}", temporary.display()))?;
        let (before, begun) = (Self::time_making(), Instant::now());
        let made = make(&temporary).with_context(|| format!("making {}", place.display()));
        // An entry that was made for this one is within its time. They are made one after the other.
        *MAKING.lock().unwrap_or_else(PoisonError::into_inner) = before + begun.elapsed();
        if let Err(error) = made {
            // Gives the disk space back at once; if even that fails, the next run does it.
            let _ = remove(&temporary);
            return Err(error);
        }
        fs::rename(&temporary, &place).with_context(|| format!("cannot put {} in place", place.display()))?;
        Ok(place)
    }

    /// The entry `name` if it is there.
    pub fn existing(&self, name: &str) -> Option<PathBuf> {
        Some(self.root.join(name)).filter(|place| place.exists())
    }

    /// How long this process has spent on making entries: what it would not have taken with a full cache.
    pub fn time_making() -> Duration {
        *MAKING.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory that lives on between runs and repairs itself (apt's lists), with the lock for changing it.
    pub fn workshop(&self, name: &str) -> Result<PathBuf> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(dir)
    }

    /// Waits for the lock `name`, saying so when another process has it.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        let path = self.root.join("locks").join(name);
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("waiting for another xtask that is making {name} …");
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Lock(file))
    }

    /// What was noted under `name`, unless that is longer ago than `age`.
    pub fn noted(&self, name: &str, age: Duration) -> Option<String> {
        let path = self.root.join(name);
        let written = fs::metadata(&path).ok()?.modified().ok()?;
        let fresh = SystemTime::now().duration_since(written).is_ok_and(|passed| passed < age);
        if fresh { fs::read_to_string(path).ok() } else { None }
    }

    /// Notes something for later runs.
    pub fn note(&self, name: &str, text: &str) -> Result<()> {
        let temporary = self.root.join("tmp").join(format!("{name}.{}", std::process::id()));
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, self.root.join(name)))
            .with_context(|| format!("cannot write {}", self.root.join(name).display()))
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("cannot remove {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        (dir, cache)
    }

    #[test]
    fn an_entry_is_made_once() {
        let (_dir, cache) = cache();
        let place = cache.entry("thing", |dir| Ok(fs::write(dir.join("file"), "content")?)).unwrap();
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "content");
        let again = cache.entry("thing", |_| bail!("made twice")).unwrap();
        assert_eq!(again, place);
    }

    #[test]
    fn a_failed_entry_is_not_there() {
        let (_dir, cache) = cache();
        cache
            .entry("thing", |dir| {
                fs::write(dir.join("half"), "")?;
                bail!("the network went away")
            })
            .unwrap_err();
        assert!(!cache.root.join("thing").exists());
        assert_eq!(fs::read_dir(cache.root.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_swept_and_made_anew() {
        let (_dir, cache) = cache();
        let half = cache.root.join("tmp/thing");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("half"), "").unwrap();
        let place = cache.entry("thing", |dir| Ok(fs::write(dir.join("whole"), "")?)).unwrap();
        assert!(place.join("whole").exists());
        assert!(!place.join("half").exists());
    }

    #[test]
    fn two_at_once_make_it_once() {
        let (_dir, cache) = cache();
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    cache
                        .entry("thing", |_| {
                            std::thread::sleep(Duration::from_millis(20));
                            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            Ok(())
                        })
                        .unwrap()
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn notes_grow_old() {
        let (_dir, cache) = cache();
        assert_eq!(cache.noted("answer", Duration::MAX), None);
        cache.note("answer", "no").unwrap();
        assert_eq!(cache.noted("answer", Duration::from_secs(60)).as_deref(), Some("no"));
        assert_eq!(cache.noted("answer", Duration::ZERO), None);
    }
}
