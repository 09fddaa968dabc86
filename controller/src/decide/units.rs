//! CPU and memory in the units in which Kubernetes sizes them: whole milli-CPUs and whole bytes.
//!
//! Arithmetic saturates: a size beyond the range is a mistake somewhere else, and must become neither a small
//! size nor a panic. Texts and serialised forms are [`Quantity`]s; what is read is rounded up, as Kubernetes does.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::quantity::{Format, Quantity, QuantityError};

/// Why a quantity is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It is no quantity.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// Nothing is smaller than 0.
    #[error("is negative")]
    Negative,
    /// Beyond 64 bits.
    #[error("is too large")]
    TooLarge,
}

fn size(whole: i128) -> Result<u64, UnitError> {
    if whole < 0 { Err(UnitError::Negative) } else { u64::try_from(whole).map_err(|_| UnitError::TooLarge) }
}

/// What both units can do.
macro_rules! unit {
    ($unit:ident) => {
        impl $unit {
            /// Nothing.
            pub const ZERO: Self = Self(0);
            /// More than there is.
            pub const MAX: Self = Self(u64::MAX);

            /// The sum, at most [`Self::MAX`].
            pub const fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// The difference, at least 0.
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// This × `numerator` ÷ `denominator`, rounded up and at most [`Self::MAX`], which it also is
            /// where the denominator is 0.
            pub const fn scale_up(self, numerator: u64, denominator: u64) -> Self {
                if denominator == 0 {
                    return Self::MAX;
                }
                let scaled = (self.0 as u128 * numerator as u128).div_ceil(denominator as u128);
                if scaled > u64::MAX as u128 { Self::MAX } else { Self(scaled as u64) }
            }
        }

        impl Sum for $unit {
            fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
                sizes.fold(Self::ZERO, Self::saturating_add)
            }
        }

        impl FromStr for $unit {
            type Err = UnitError;

            fn from_str(text: &str) -> Result<Self, UnitError> {
                Self::try_from(text.parse::<Quantity>()?)
            }
        }

        impl fmt::Display for $unit {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Quantity::from(*self).fmt(f)
            }
        }

        impl Serialize for $unit {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Quantity::from(*self).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let quantity = Quantity::deserialize(deserializer)?;
                Self::try_from(quantity)
                    .map_err(|error| de::Error::custom(format_args!("{quantity} {error}")))
            }
        }
    };
}

/// CPU in thousandths of a core, the finest step of a Kubernetes request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MilliCpu(pub u64);

unit!(MilliCpu);

impl MilliCpu {
    /// The smallest whole number of milli-CPUs that is at least so many cores; 0 for what is no number.
    pub fn ceil_cores(cores: f64) -> Self {
        // The conversion saturates at both ends. A product like 0.1 × 3 × 1000 is not to round up for its last bit.
        Self((cores * 1000.0 - 1e-6).ceil() as u64)
    }

    /// In cores.
    pub fn cores(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl From<MilliCpu> for Quantity {
    fn from(cpu: MilliCpu) -> Self {
        Self::from_milli(cpu.0, Format::DecimalSi)
    }
}

impl TryFrom<Quantity> for MilliCpu {
    type Error = UnitError;

    fn try_from(cores: Quantity) -> Result<Self, UnitError> {
        size(cores.ceil_milli()).map(Self)
    }
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

unit!(Bytes);

impl From<Bytes> for Quantity {
    fn from(memory: Bytes) -> Self {
        Self::from_units(memory.0, Format::BinarySi)
    }
}

impl TryFrom<Quantity> for Bytes {
    type Error = UnitError;

    fn try_from(bytes: Quantity) -> Result<Self, UnitError> {
        size(bytes.ceil_units()).map(Self)
    }
}

/// A moment, in whole seconds since the Unix epoch. Decisions are given it; they never ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Seconds from `earlier` until this; 0 where it is not earlier: a clock that went back makes nothing older.
    pub const fn seconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// So many seconds later.
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        for (text, milli) in [("250m", 250), ("2", 2000), ("0.0001", 1), ("1e3", 1_000_000), ("1.0005", 1001)]
        {
            assert_eq!(text.parse(), Ok(MilliCpu(milli)), "{text}");
        }
        for (text, bytes) in [("64Mi", 64 << 20), ("129M", 129_000_000), ("100m", 1), ("1.5Gi", 1536 << 20)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        assert_eq!("-1m".parse::<MilliCpu>(), Err(UnitError::Negative));
        assert_eq!("20000P".parse::<MilliCpu>(), Err(UnitError::TooLarge));
        assert_eq!("1x".parse::<Bytes>(), Err(UnitError::Quantity(QuantityError::Suffix)));
        let error = serde_json::from_str::<MilliCpu>("-1").unwrap_err().to_string();
        assert!(error.starts_with("-1 is negative"), "{error}");
    }

    #[test]
    fn sizes_are_printed_canonically() {
        assert_eq!(MilliCpu(1500).to_string(), "1500m");
        assert_eq!(MilliCpu(2000).to_string(), "2");
        assert_eq!(Bytes(1536 << 20).to_string(), "1536Mi");
        // Below 1024 as apimachinery prints it.
        assert_eq!(Bytes(1000).to_string(), "1k");
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(MilliCpu::MAX.saturating_add(MilliCpu(1)), MilliCpu::MAX);
        assert_eq!(MilliCpu(1).saturating_sub(MilliCpu(2)), MilliCpu::ZERO);
        assert_eq!(Bytes::MAX.scale_up(3, 2), Bytes::MAX);
        assert_eq!(Bytes(1).scale_up(1, 0), Bytes::MAX);
        assert_eq!(Bytes(10).scale_up(1, 3), Bytes(4));
        assert_eq!([MilliCpu::MAX, MilliCpu(1)].into_iter().sum::<MilliCpu>(), MilliCpu::MAX);
        assert_eq!(Timestamp(5).seconds_since(Timestamp(9)), 0);
        assert_eq!(Timestamp(5).plus_seconds(u64::MAX), Timestamp(u64::MAX));
    }

    #[test]
    fn cores_round_up_to_milli_cpus() {
        for (cores, milli) in
            [(0.1 * 3.0, 300), (0.3001, 301), (0.0, 0), (-1.0, 0), (f64::NAN, 0), (f64::INFINITY, u64::MAX)]
        {
            assert_eq!(MilliCpu::ceil_cores(cores), MilliCpu(milli), "{cores}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(size in any::<u64>()) {
            prop_assert_eq!(MilliCpu(size).to_string().parse(), Ok(MilliCpu(size)));
            // A binary quantity ends at 2⁶³ − 1.
            let bytes = Bytes(size >> 1);
            prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
            let json = serde_json::to_string(&bytes).unwrap();
            prop_assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap(), bytes);
        }
    }
}
