//! The kernel side as user space sees it: loading, attaching, reading.

pub mod btf;
pub mod layout;
pub mod load;
pub mod mapped;
pub mod object;
pub mod self_check;
pub mod untested;
