//! `wasi:keyvalue`: a guest's way to what its function keeps.

use std::collections::VecDeque;

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::WasiView;

use self::bindings::wasi::keyvalue::{
    atomics, batch,
    store::{self, Error, KeyResponse},
};
use super::component::ComponentHost;
use crate::keyvalue::{FunctionStore, KeyvalueError};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue",
        world: "imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": super::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => super::KeyvalueError },
    });
}

/// Each function has one, which has these names.
const NAMES: [&str; 2] = ["", "default"];
/// Pages of a bucket whose cursors are known.
const MOST_CURSORS: usize = 16;

type Result<T> = std::result::Result<T, KeyvalueError>;

/// A guest's handle to what its function keeps.
pub struct Bucket {
    store: FunctionStore,
    /// The last key of each page that has a next one, the oldest first.
    pages: VecDeque<(u64, String)>,
    next_cursor: u64,
}

/// # Errors
/// If something else has their names.
pub(super) fn link(linker: &mut Linker<ComponentHost>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasSelf<ComponentHost>>(linker, |host| host)?;
    atomics::add_to_linker::<_, HasSelf<ComponentHost>>(linker, |host| host)?;
    batch::add_to_linker::<_, HasSelf<ComponentHost>>(linker, |host| host)
}

impl ComponentHost {
    /// Also looks at what the box holds for the guest.
    fn bucket(&mut self, bucket: &Resource<Bucket>) -> Result<&mut Bucket> {
        Ok(self.ctx().table.get_mut(bucket)?)
    }

    fn kept(&mut self, bucket: &Resource<Bucket>) -> Result<FunctionStore> {
        Ok(self.bucket(bucket)?.store.clone())
    }
}

impl store::Host for ComponentHost {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>> {
        if !NAMES.contains(&identifier.as_str()) {
            return Err(KeyvalueError::NoSuchStore);
        }
        let store = self.keyvalue().ok_or(KeyvalueError::NoStore)?;
        Ok(self.ctx().table.push(Bucket { store, pages: VecDeque::new(), next_cursor: 1 })?)
    }

    fn convert_error(&mut self, error: KeyvalueError) -> wasmtime::Result<Error> {
        Ok(match error {
            KeyvalueError::NoSuchStore => Error::NoSuchStore,
            KeyvalueError::NoStore => Error::AccessDenied,
            KeyvalueError::Handle(error) => return Err(error.into()),
            KeyvalueError::Key { .. }
            | KeyvalueError::Value { .. }
            | KeyvalueError::Batch { .. }
            | KeyvalueError::Quota { .. }
            | KeyvalueError::Memory { .. }
            | KeyvalueError::NotANumber
            | KeyvalueError::Cursor
            | KeyvalueError::Storage { .. } => Error::Other(error.to_string()),
        })
    }
}

impl store::HostBucket for ComponentHost {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>> {
        let (store, memory) = (self.kept(&bucket)?, self.memory.clone());
        Ok(store.get(vec![key], memory).await?.pop().flatten())
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<()> {
        let (store, memory) = (self.kept(&bucket)?, self.memory.clone());
        store.set(vec![(key, value)], memory).await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<()> {
        self.kept(&bucket)?.delete(vec![key]).await
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool> {
        self.kept(&bucket)?.exists(key).await
    }

    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<u64>) -> Result<KeyResponse> {
        let (store, memory) = (self.kept(&bucket)?, self.memory.clone());
        let pages = &self.bucket(&bucket)?.pages;
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let page = pages.iter().find(|(known, _)| *known == cursor).ok_or(KeyvalueError::Cursor)?;
                Some(page.1.clone())
            }
        };
        let page = store.list(after, memory).await?;
        let bucket = self.bucket(&bucket)?;
        let last = page.keys.last().filter(|_| page.has_more);
        let cursor = last.map(|last| {
            let cursor = bucket.next_cursor;
            bucket.next_cursor += 1;
            bucket.pages.push_back((cursor, last.clone()));
            if bucket.pages.len() > MOST_CURSORS {
                bucket.pages.pop_front();
            }
            cursor
        });
        Ok(KeyResponse { keys: page.keys, cursor })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.ctx().table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for ComponentHost {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<u64> {
        self.kept(&bucket)?.increment(key, delta).await
    }
}

impl batch::Host for ComponentHost {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>> {
        let (store, memory) = (self.kept(&bucket)?, self.memory.clone());
        let values = store.get(keys.clone(), memory).await?;
        Ok(keys.into_iter().zip(values).map(|(key, value)| Some((key, value?))).collect())
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Result<()> {
        let (store, memory) = (self.kept(&bucket)?, self.memory.clone());
        store.set(pairs, memory).await
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<()> {
        self.kept(&bucket)?.delete(keys).await
    }
}
