//! Listings of directories, as long as the directory is. wasmtime reads one whole before a guest gets the first name, on a thread for files, where nobody is
//! charged. So before that it is measured, and its invocation must have room for it. WASI 0.3 streams them.
//!
//! The thread goes on when the invocation is ended meanwhile. It has the directory open, so that one sees when it has ended; until then it is paid for.

use std::{
    fs::File,
    io,
    mem::MaybeUninit,
    num::NonZeroUsize,
    sync::{Arc, Weak},
    time::Duration,
};

use rustix::fs::{Mode, OFlags, RawDir, openat};
use tokio::{runtime::Handle, time::sleep};
use wasmtime::{
    AsContextMut, Caller, Extern, Linker as CoreLinker, StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::{
    WasiView,
    filesystem::{Descriptor, WasiFilesystemView},
    p1::{
        WasiP1Ctx,
        types::{Errno, Filetype},
        wasi_snapshot_preview1::{WasiSnapshotPreview1, fd_readdir},
    },
    p2::{
        ReaddirIterator,
        bindings::filesystem::types::{ErrorCode, HostDescriptor},
    },
    runtime::spawn_blocking,
};
use wiggle::GuestMemory;

use super::{command::CoreHost, component::ComponentHost, file_access::MOST_FILES, limiter::Limiter};
use crate::{allocator::HeldBytes, memory::MemoryReservation};

/// As wasmtime has it: what is defined here takes the place of its own.
const TYPES: &str = "wasi:filesystem/types@0.2.12";
/// What an entry takes in lists that grow, bytes, beside its name. Preview 1 has two of them.
const ENTRY: u64 = 320;
/// What the kernel writes entries into, bytes.
const BUFFER: usize = 32 << 10;

/// # Errors
/// If a type differs from wasmtime's: a mistake in this file.
pub(super) fn link_core(linker: &mut CoreLinker<CoreHost>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        "wasi_snapshot_preview1",
        "fd_readdir",
        |mut caller: Caller<'_, CoreHost>, (fd, buffer, length, cookie, used): (i32, i32, i32, i64, i32)| {
            Box::new(async move {
                let fuel = caller.as_context_mut().hostcall_fuel();
                let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                    wasmtime::bail!("missing required memory export");
                };
                let host = caller.data_mut();
                let directories = of_fd(host.wasi(), fd).await;
                let Some(listing) = hold(&mut host.limiter, directories).await else {
                    return Ok(Errno::Nomem as i32);
                };
                let (memory, host) = memory.data_and_store_mut(&mut caller);
                let wasi = host.wasi();
                wasi.set_hostcall_fuel(fuel);
                let errno =
                    fd_readdir(wasi, &mut GuestMemory::Unshared(memory), fd, buffer, length, cookie, used).await;
                listing.ended();
                errno
            })
        },
    )?;
    Ok(())
}

/// The same for components of WASI 0.2, whose listings stay until they are dropped.
///
/// # Errors
/// As [`link_core`].
pub(super) fn link(linker: &mut Linker<ComponentHost>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES)?;
    types.resource("directory-entry-stream", ResourceType::host::<ReaddirIterator>(), |mut store, listing| {
        let host: &mut ComponentHost = store.data_mut();
        host.ctx().table.delete(Resource::<ReaddirIterator>::new_own(listing))?;
        host.listings.remove(&listing);
        Ok(())
    })?;
    types.func_wrap_async(
        "[method]descriptor.read-directory",
        |mut store: StoreContextMut<'_, ComponentHost>, (directory,): (Resource<Descriptor>,)| {
            Box::new(async move {
                let host = store.data_mut();
                let file = match host.ctx().table.get(&directory)? {
                    Descriptor::Dir(directory) => vec![directory.dir.clone()],
                    Descriptor::File(_) => Vec::new(),
                };
                let Some(listing) = hold(&mut host.limiter, file).await else {
                    return Ok((Err(ErrorCode::InsufficientMemory),));
                };
                let entries = host.filesystem().read_directory(directory).await;
                let held = listing.ended();
                Ok((match entries {
                    Ok(entries) => {
                        host.listings.insert(entries.rep(), held);
                        Ok(entries)
                    }
                    Err(error) => Err(error.downcast()?),
                },))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// While wasmtime lists one of these directories.
struct Listing {
    directories: Vec<Weak<File>>,
    held: Option<(HeldBytes, Arc<MemoryReservation>)>,
    /// That of the function's files.
    runtime: Option<Handle>,
}

/// How often a thread is looked after that lists for nobody.
const LOOK: Duration = Duration::from_millis(10);

impl Listing {
    /// What it has made takes that of its invocation.
    fn ended(mut self) -> Option<HeldBytes> {
        self.held.take().map(|(held, _)| held)
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let directories = std::mem::take(&mut self.directories);
        let wait = async move {
            while directories.iter().any(|directory| directory.strong_count() > 0) {
                sleep(LOOK).await;
            }
            drop(held);
        };
        if let Some(runtime) = self.runtime.take() {
            drop(runtime.spawn(wait));
        }
    }
}

/// Room for the longest listing of `directories`; an error in that is wasmtime's to tell.
async fn hold(limiter: &mut Limiter, directories: Vec<Arc<File>>) -> Option<Listing> {
    let mut listing =
        Listing { directories: directories.iter().map(Arc::downgrade).collect(), held: None, runtime: None };
    if directories.is_empty() {
        return Some(listing);
    }
    let most = limiter.most();
    let measured = spawn_blocking(move || {
        directories.iter().map(|directory| measure(directory, most).unwrap_or(0)).max().unwrap_or(0)
    });
    if let Some(bytes) = NonZeroUsize::new(usize::try_from(measured.await).ok()?) {
        listing.held = Some(limiter.hold(bytes)?);
        listing.runtime = Handle::try_current().ok();
    }
    Some(listing)
}

/// What a listing takes of the box's memory, bytes; above `most` it is not read to its end.
fn measure(directory: &File, most: u64) -> io::Result<u64> {
    // A reader of its own: the descriptor's position is the guest's.
    let directory = openat(directory, ".", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut bytes = 0;
    while let Some(entry) = entries.next() {
        bytes += ENTRY + entry?.file_name().count_bytes() as u64;
        if bytes > most {
            break;
        }
    }
    Ok(bytes)
}

/// The directory that is a guest's `fd`. wasmtime does not say which of its handles stands for a number, but it has a hash of device and inode for both, which stay the
/// same whatever happens to the directory.
async fn of_fd(wasi: &mut WasiP1Ctx, fd: i32) -> Vec<Arc<File>> {
    let status = wasi.fd_filestat_get(&mut GuestMemory::Unshared(&mut []), fd.into()).await;
    let Some(status) = status.ok().filter(|status| status.filetype == Filetype::Directory) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for handle in 0..MOST_FILES {
        let handle = Resource::<Descriptor>::new_borrow(handle);
        let Ok(Descriptor::Dir(directory)) = wasi.ctx().table.get(&handle) else { continue };
        let directory = directory.dir.clone();
        if wasi.filesystem().metadata_hash(handle).await.is_ok_and(|hash| hash.lower == status.ino) {
            return vec![directory];
        }
        all.push(directory);
    }
    all
}
