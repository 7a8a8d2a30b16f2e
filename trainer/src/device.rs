//! Where tensors live.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::error::{Result, TrainerError};

/// A device by name: `cpu`, or `cuda:N` for the N-th GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceName {
    /// The processor; threads are set by `RAYON_NUM_THREADS` and `CANDLE_NUM_THREADS`.
    #[default]
    Cpu,
    /// A GPU, counted from 0.
    Cuda(usize),
}

impl DeviceName {
    /// Opens the device.
    ///
    /// # Errors
    /// [`TrainerError::Device`] when a GPU is named and this build has no CUDA or the machine no such GPU.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => Err(TrainerError::Device {
                device: self.to_string(),
                problem: "this build has no CUDA; build with `--features cuda`, or use `cpu`".to_owned(),
            }),
            Self::Cuda(ordinal) => Device::new_cuda(ordinal).map_err(|error| TrainerError::Device {
                device: self.to_string(),
                problem: format!("cannot open it: {error}"),
            }),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = TrainerError;

    fn from_str(name: &str) -> Result<Self> {
        let problem = || TrainerError::Device {
            device: name.to_owned(),
            problem: "must be `cpu` or `cuda:N`".to_owned(),
        };
        match name {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let ordinal = name.strip_prefix("cuda:").ok_or_else(problem)?;
                ordinal.parse().map(Self::Cuda).map_err(|_| problem())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_written() {
        for name in [DeviceName::Cpu, DeviceName::Cuda(0), DeviceName::Cuda(7)] {
            assert_eq!(name.to_string().parse::<DeviceName>().unwrap(), name);
        }
        assert_eq!("cuda".parse::<DeviceName>().unwrap(), DeviceName::Cuda(0));
        for bad in ["gpu", "cuda:x", "cuda:-1", ""] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_build_without_cuda_says_so() {
        if !candle_core::utils::cuda_is_available() {
            let error = DeviceName::Cuda(0).open().unwrap_err().to_string();
            assert!(
                error.contains("cuda:0") && error.contains("--features cuda"),
                "{error}"
            );
        }
    }
}
