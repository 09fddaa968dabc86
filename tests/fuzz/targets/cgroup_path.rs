//! Any path: its owner is within it, and nothing of the owner is made up.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use loadline_fuzz::cgroup::path::{Class, classify};
use sampler_common::identity::Owner;

/// What a container may have in it: another one, which would be somebody else's anywhere else.
const WITHIN: &str = "docker/0f3c5b8e9a7d6c4b2a1f0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c9b";

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new(OsStr::from_bytes(bytes));
    let below = path.strip_prefix("/").unwrap_or(path);
    let class = classify(path);
    assert_eq!(class, classify(below));
    let identity = class.identity(path);
    assert_eq!((&identity.owner, identity.path.as_str()), (&class.owner, &*below.to_string_lossy()));
    let Class { owner, root } = &class;
    let Some(root) = root else {
        assert_eq!(*owner, Owner::Outside);
        return;
    };
    assert!(below.starts_with(root));
    assert_eq!(class, classify(root));
    let text = root.to_string_lossy();
    match owner {
        Owner::Container(container) => {
            assert!(text.contains(container.id.as_str()));
            assert_eq!(container.names, None);
            if let Some(pod) = &container.pod {
                assert!(text.replace('_', "-").contains(&pod.uid.as_str().replace('_', "-")));
                assert_eq!(class, classify(&root.join(WITHIN)));
            }
        }
        Owner::Unit { name } => assert!(root.ends_with(name)),
        Owner::Outside => panic!("nobody's has no root"),
    }
});
