//! What users write: the custom resources, as their YAML has them. No client is involved.
//!
//! Everything may be left out; what is there is well-formed. [`crate::decide::policy`] says what holds in the end.

pub mod policy;
