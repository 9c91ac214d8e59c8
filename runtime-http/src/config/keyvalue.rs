//! Where functions keep values.

use std::path::PathBuf;

use super::{ConfigError, settings::settings, within};
use crate::{
    keyvalue::place::{KeyvalueConfig, KeyvaluePlace, RedisUrl},
    limits::ByteSize,
};

settings! {
    /// Where functions keep values.
    pub struct KeyvalueSettings {
        /// Directory in which functions keep values (wasi:keyvalue), private to this user; one box at a time [default: none]
        #[arg(long, value_name = "DIR")]
        keyvalue_dir: PathBuf = ["KEYVALUE_DIR"],
        /// Redis or Valkey in which functions keep values instead: redis://USER:PASSWORD@HOST:PORT/DATABASE, of which the host alone is needed [default: none]
        #[arg(long, value_name = "URL")]
        keyvalue_redis: RedisUrl = ["KEYVALUE_REDIS"],
        /// The most that one function may keep, keys and 64 bytes for each included [default: 64Mi]
        #[arg(long, value_name = "SIZE")]
        keyvalue_quota: ByteSize = ["KEYVALUE_QUOTA"],
    }
}

impl KeyvalueSettings {
    pub(super) fn resolve(self) -> Result<KeyvalueConfig, ConfigError> {
        let quota = self.keyvalue_quota.unwrap_or(ByteSize::of_mebibytes(64));
        within("--keyvalue-quota", quota, ByteSize::of_bytes(1 << 10), ByteSize::of_mebibytes(1 << 20))?;
        let place = match (self.keyvalue_dir, self.keyvalue_redis) {
            (None, None) => None,
            (Some(path), None) => Some(KeyvaluePlace::Directory(path)),
            (None, Some(url)) => Some(KeyvaluePlace::Redis(url)),
            (Some(path), Some(_)) => {
                return Err(ConfigError::Value {
                    name: "--keyvalue-dir",
                    value: path.display().to_string(),
                    expected: "no --keyvalue-redis beside it".into(),
                });
            }
        };
        Ok(KeyvalueConfig { place, quota })
    }
}
