//! Redis or Valkey: for each function a hash of values, a sorted set of its keys, and a count of what they take.
//!
//! What changes something is a script, so that it happens at once or not at all, whoever else uses the server. All functions share one connection, on
//! which many requests can be under way; each function has few of them at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, aio::MultiplexedConnection, cmd};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Mutex, Semaphore},
};

use super::{InvocationMemory, KeyvalueError, PAGE_KEYS, Page, Result, place::RedisUrl};
use crate::{by_name::ByName, tasks::Owned, threads::ThreadStart};

/// Requests under way, of all functions, and of one.
const REQUESTS: usize = 64;
const REQUESTS_OF_FUNCTION: usize = 4;
const CONNECT_TIME: Duration = Duration::from_secs(2);
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Between two tries to connect.
const RETRY_TIME: Duration = Duration::from_secs(1);

/// Keys: the hash, the sorted set, the count. Arguments: the quota, then key and value in turn. Gives 0 if it is too much.
const SET: &str = r"
local used = tonumber(redis.call('GET', KEYS[3]) or '0')
for i = 2, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    used = used - #ARGV[i] - redis.call('HSTRLEN', KEYS[1], ARGV[i]) - 64
  end
  used = used + #ARGV[i] + #ARGV[i + 1] + 64
end
if used > tonumber(ARGV[1]) then return 0 end
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[2], 0, ARGV[i])
end
redis.call('SET', KEYS[3], string.format('%.0f', used))
return 1";
/// Arguments: keys.
const DELETE: &str = r"
local used = tonumber(redis.call('GET', KEYS[3]) or '0')
for i = 1, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    used = used - #ARGV[i] - redis.call('HSTRLEN', KEYS[1], ARGV[i]) - 64
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
  end
end
redis.call('SET', KEYS[3], string.format('%.0f', used))
return 1";
/// Arguments: the quota, the key, what its value must be (or nothing and 0), what becomes of it. Gives 0 if it is too much, 2 if it was another value.
const REPLACE: &str = r"
local before = redis.call('HGET', KEYS[1], ARGV[2])
if (before or '') ~= ARGV[3] then return 2 end
local used = tonumber(redis.call('GET', KEYS[3]) or '0')
if before then used = used - #ARGV[2] - #before - 64 end
used = used + #ARGV[2] + #ARGV[4] + 64
if used > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
redis.call('ZADD', KEYS[2], 0, ARGV[2])
redis.call('SET', KEYS[3], string.format('%.0f', used))
return 1";

/// The connection, if there is one.
#[derive(Default)]
struct Connection {
    /// Of the last one.
    number: u64,
    open: Option<MultiplexedConnection>,
    /// When the server took none, last.
    refused: Option<Instant>,
}

pub struct Redis {
    shared: Arc<Shared>,
    by_function: ByName<Namespace>,
    quota: u64,
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    client: Client,
    /// `None`: there is none, or it broke off.
    connection: Mutex<Connection>,
    places: Arc<Semaphore>,
}

/// One function's.
pub struct Namespace {
    /// Of the hash, the sorted set and the count. The braces have a cluster keep them in one place.
    keys: [String; 3],
    places: Arc<Semaphore>,
}

impl Redis {
    /// Connects when something is asked for.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn start(url: &RedisUrl, quota: u64, thread_start: ThreadStart) -> io::Result<Redis> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            // For the look-up of its name.
            .max_blocking_threads(1)
            .thread_name("keyvalue")
            .on_thread_start(move || thread_start())
            .enable_all()
            .build()?;
        let client = Client::open(url.connection()).map_err(io::Error::other)?;
        let shared = Shared { client, connection: Mutex::default(), places: Arc::new(Semaphore::new(REQUESTS)) };
        Ok(Redis { shared: Arc::new(shared), by_function: ByName::default(), quota, runtime: Some(runtime) })
    }

    pub fn of(&self, name: &Arc<str>) -> Arc<Namespace> {
        self.by_function.of(name, || Namespace {
            keys: ["values", "keys", "used"].map(|part| format!("wasmbox:{{{name}}}:{part}")),
            places: Arc::new(Semaphore::new(REQUESTS_OF_FUNCTION)),
        })
    }

    /// On the thread of the connection, when the function has a place there.
    async fn run<T: Send + 'static>(
        &self,
        namespace: &Arc<Namespace>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let runtime = self.runtime.as_ref().expect("it is there until this is dropped");
        let own = namespace.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let common = self.shared.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let mut task = Owned(runtime.spawn(async move {
            let _places = (own, common);
            work.await
        }));
        // Who panicked has said why.
        (&mut task.0).await.map_err(|_| KeyvalueError::storage("it did not end"))?
    }

    pub async fn get(
        &self,
        namespace: &Arc<Namespace>,
        keys: Vec<String>,
        memory: InvocationMemory,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let (shared, own) = (self.shared.clone(), namespace.clone());
        self.run(namespace, async move {
            let mut values = Vec::with_capacity(keys.len());
            for key in &keys {
                let length: usize = shared.ask(own.command("HSTRLEN", 0).arg(key)).await?;
                let held = memory.hold(length)?;
                let value: Option<Vec<u8>> = shared.ask(own.command("HGET", 0).arg(key)).await?;
                // From here on it is the copy that counts.
                drop(held);
                values.push(value.map(|value| memory.copy(&value)).transpose()?);
            }
            Ok(values)
        })
        .await
    }

    pub async fn set(
        &self,
        namespace: &Arc<Namespace>,
        pairs: BTreeMap<String, Vec<u8>>,
        memory: InvocationMemory,
    ) -> Result<()> {
        let (shared, own, quota) = (self.shared.clone(), namespace.clone(), self.quota);
        self.run(namespace, async move {
            let _held = memory.hold_copy(&pairs)?;
            let mut script = own.script(SET);
            script.arg(quota);
            for (key, value) in &pairs {
                script.arg(key).arg(value);
            }
            match shared.ask(&script).await? {
                0_u64 => Err(KeyvalueError::Quota { quota }),
                _ => Ok(()),
            }
        })
        .await
    }

    pub async fn delete(&self, namespace: &Arc<Namespace>, keys: BTreeSet<String>) -> Result<()> {
        let (shared, own) = (self.shared.clone(), namespace.clone());
        self.run(namespace, async move {
            let mut script = own.script(DELETE);
            for key in &keys {
                script.arg(key);
            }
            shared.ask::<u64>(&script).await.map(drop)
        })
        .await
    }

    pub async fn exists(&self, namespace: &Arc<Namespace>, key: String) -> Result<bool> {
        let (shared, own) = (self.shared.clone(), namespace.clone());
        self.run(namespace, async move { shared.ask(own.command("HEXISTS", 0).arg(key)).await }).await
    }

    /// Lua's numbers are too small for a sum: it is made here, and replaces what it was made of.
    pub async fn increment(&self, namespace: &Arc<Namespace>, key: String, delta: u64) -> Result<u64> {
        let (shared, own, quota) = (self.shared.clone(), namespace.clone(), self.quota);
        self.run(namespace, async move {
            loop {
                let length: usize = shared.ask(own.command("HSTRLEN", 0).arg(&key)).await?;
                if length > u64::MAX.to_string().len() {
                    return Err(KeyvalueError::NotANumber);
                }
                let before: Option<Vec<u8>> = shared.ask(own.command("HGET", 0).arg(&key)).await?;
                let number = match &before {
                    Some(value) => super::number(value).ok_or(KeyvalueError::NotANumber)?,
                    None => 0,
                };
                let sum = number.checked_add(delta).ok_or(KeyvalueError::NotANumber)?;
                let mut script = own.script(REPLACE);
                script.arg(quota).arg(&key).arg(before.unwrap_or_default()).arg(sum.to_string());
                match shared.ask(&script).await? {
                    0_u64 => return Err(KeyvalueError::Quota { quota }),
                    1 => return Ok(sum),
                    // Somebody was faster.
                    _ => {}
                }
            }
        })
        .await
    }

    pub async fn list(
        &self,
        namespace: &Arc<Namespace>,
        after: Option<String>,
        memory: InvocationMemory,
    ) -> Result<Page> {
        let (shared, own) = (self.shared.clone(), namespace.clone());
        self.run(namespace, async move {
            let _held = memory.hold_page()?;
            let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
            let mut command = own.command("ZRANGEBYLEX", 1);
            command.arg(from).arg("+").arg("LIMIT").arg(0).arg(PAGE_KEYS + 1);
            let mut keys: Vec<String> = shared.ask(&command).await?;
            let has_more = keys.len() > PAGE_KEYS;
            keys.truncate(PAGE_KEYS);
            let keys = keys.iter().map(|key| memory.text(key)).collect::<Result<_>>()?;
            Ok(Page { keys, has_more })
        })
        .await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Namespace {
    /// About one of its keys.
    fn command(&self, name: &str, key: usize) -> Cmd {
        let mut command = cmd(name);
        command.arg(&self.keys[key]);
        command
    }

    fn script(&self, text: &str) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(text).arg(self.keys.len()).arg(&self.keys);
        command
    }
}

impl Shared {
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let (number, mut connection) = self.connection().await?;
        let answer = command.query_async(&mut connection).await;
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => {
                if error.is_unrecoverable_error() || error.is_timeout() {
                    self.forget(number).await;
                }
                Err(KeyvalueError::storage(error))
            }
        }
    }

    /// The one connection, with its number. A server that did not take one just now is not tried by each who waits, one after the other.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection)> {
        let mut state = self.connection.lock().await;
        if let Some(connection) = &state.open {
            return Ok((state.number, connection.clone()));
        }
        if state.refused.is_some_and(|refused| refused.elapsed() < RETRY_TIME) {
            return Err(KeyvalueError::storage("the server took no connection a moment ago"));
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIME))
            .set_response_timeout(Some(ANSWER_TIME));
        match self.client.get_multiplexed_async_connection_with_config(&config).await {
            Ok(opened) => {
                *state = Connection { number: state.number + 1, open: Some(opened.clone()), refused: None };
                Ok((state.number, opened))
            }
            Err(error) => {
                state.refused = Some(Instant::now());
                Err(KeyvalueError::storage(error))
            }
        }
    }

    /// The next request connects anew, unless somebody has done so.
    async fn forget(&self, number: u64) {
        let mut state = self.connection.lock().await;
        if state.number == number {
            state.open = None;
        }
    }
}
