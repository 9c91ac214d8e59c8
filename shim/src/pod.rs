//! The containers of one shim.

use std::{
    collections::HashMap,
    env,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use containerd_shim_protos::{
    protobuf::{Message, well_known_types::any::Any},
    types::mount::Mount,
};
use tokio::sync::{Notify, oneshot};
use wasmbox_oci::{Edit, EditError, Kind, KindError, Spec, SpecError};

use crate::{
    bundle::Bundle,
    compile_socket::CompileSocket,
    container::{Actor, Container, ContainerError, Setting},
    delegation,
    events::Events,
    exits::Exits,
    options::{Options, OptionsError},
    runtime::Runtime,
    stdio::Addresses,
};

#[derive(Debug, thiserror::Error)]
pub enum PodError {
    #[error("container {0} exists already")]
    Exists(String),
    #[error("no container {0}")]
    NotFound(String),
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Kind(#[from] KindError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the wasmbox binary {} is not there; install it beside the shim, or name it with the runtime option WasmboxBinary", path.display())]
    NoBinary { path: PathBuf },
    #[error("the shim is ending")]
    Ending,
    #[error(transparent)]
    Container(#[from] ContainerError),
}

/// What a container is to be made of.
pub struct Request {
    pub id: String,
    pub bundle: Bundle,
    pub rootfs: Vec<Mount>,
    pub addresses: Addresses,
}

type Created = Result<Arc<Container>, PodError>;

pub struct Pod {
    namespace: String,
    /// The bundle of the container that the shim was started for: with CRI, the sandbox.
    first: Bundle,
    exits: Exits,
    events: Events,
    /// A lock, since it is looked up by all calls, and never kept while something is waited for.
    containers: Mutex<Containers>,
    /// Notified when the shim is to end.
    end: Arc<Notify>,
}

#[derive(Default)]
struct Containers {
    entries: HashMap<String, Entry>,
    /// Nothing new begins in a shim that is ending: it would end with it.
    ending: bool,
}

impl Containers {
    fn forget(&mut self, id: &str, first: &Bundle) {
        self.entries.remove(id);
        first.forget(id);
    }
}

enum Entry {
    /// Its creation has begun; nobody else may take the id.
    Creating,
    Created(Arc<Container>),
}

impl Pod {
    pub fn new(namespace: String, first: Bundle, exits: Exits, events: Events, end: Arc<Notify>) -> Pod {
        Pod { namespace, first, exits, events, containers: Mutex::default(), end }
    }

    fn containers(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn container(&self, id: &str) -> Result<Arc<Container>, PodError> {
        match self.containers().entries.get(id) {
            Some(Entry::Created(container)) => Ok(container.clone()),
            Some(Entry::Creating) | None => Err(PodError::NotFound(id.to_owned())),
        }
    }

    /// Whether its creation has begun.
    pub fn is_creating(&self, id: &str) -> bool {
        matches!(self.containers().entries.get(id), Some(Entry::Creating))
    }

    /// Ends the shim, unless there are containers, or will be.
    pub fn end_if_empty(&self) {
        let mut containers = self.containers();
        if containers.entries.is_empty() {
            containers.ending = true;
            self.end.notify_one();
        }
    }

    /// Makes a container. If nobody is there any more to hear of it, it is undone, and a shim without containers ends: nobody else would
    /// remove what nobody knows.
    pub async fn create(self: &Arc<Self>, request: Request, options: Option<Any>) -> Result<Arc<Container>, PodError> {
        let id = request.id.clone();
        {
            let mut containers = self.containers();
            if containers.ending {
                return Err(PodError::Ending);
            }
            if containers.entries.contains_key(&id) {
                return Err(PodError::Exists(id));
            }
            containers.entries.insert(id.clone(), Entry::Creating);
        }
        let (answer, created) = oneshot::channel();
        tokio::spawn(self.clone().keep(request, options, answer));
        created.await.map_err(|_| PodError::Ending)?
    }

    /// The container's task, from its creation to its deletion.
    async fn keep(self: Arc<Self>, request: Request, options: Option<Any>, answer: oneshot::Sender<Created>) {
        let id = request.id.clone();
        let is_heard = match self.make(request, options.as_ref()).await {
            Ok((container, mut actor)) => {
                let container = Arc::new(container);
                self.containers().entries.insert(id.clone(), Entry::Created(container.clone()));
                let is_heard = answer.send(Ok(container)).is_ok();
                if !is_heard {
                    log::warn!("container {id}: whoever asked for it is gone: removing it");
                    actor.discard();
                }
                actor.run().await;
                self.containers().forget(&id, &self.first);
                // Its name can be taken again now.
                actor.finish();
                is_heard
            }
            Err(error) => {
                self.containers().forget(&id, &self.first);
                answer.send(Err(error)).is_ok()
            }
        };
        if !is_heard {
            self.end_if_empty();
        }
    }

    async fn make(&self, request: Request, options: Option<&Any>) -> Result<(Container, Actor), PodError> {
        let Request { id, bundle, rootfs, addresses } = request;
        let io = |source| PodError::Io { path: bundle.path().to_owned(), source };
        let mut options = match options {
            Some(any) => {
                let options = Options::from_any(any)?;
                // For `delete`, after a shim that was killed.
                bundle.write_options(&any.write_to_bytes().unwrap_or_default()).map_err(io)?;
                options
            }
            None => Options::default(),
        };
        let mut spec = Spec::parse(&bundle.read_config().map_err(io)?)?;
        let mut compile_socket = None;
        if let Kind::WasmBox(entry) = Kind::of(&spec)? {
            let mut edit = edit(&options)?;
            (edit.cache, compile_socket) = CompileSocket::offer(&options, &edit.binary, &bundle, &self.exits).unzip();
            edit.apply(&mut spec, &entry)?;
            for (name, value) in &options.env {
                spec.default_env(name, value)?;
            }
            bundle.write_config(&spec.to_json()).map_err(io)?;
        }
        if bundle.path() != self.first.path() {
            bundle.note(&self.first, &id).map_err(io)?;
        }
        options.systemd_cgroup |= spec.has_systemd_cgroup();
        let runtime = Runtime::new(&options, &self.namespace, self.exits.clone());
        let setting = Setting {
            id,
            bundle,
            namespace: self.namespace.clone(),
            runtime,
            exits: self.exits.clone(),
            events: self.events.clone(),
            shares_pids: !spec.has_own_namespace("pid"),
            io_owner: (options.io_uid, options.io_gid),
        };
        Ok(Actor::create(setting, rootfs, addresses, compile_socket).await?)
    }
}

/// What this node offers a box.
fn edit(options: &Options) -> Result<Edit, PodError> {
    let own = own_path().map_err(|source| PodError::Io { path: "/proc/self/exe".into(), source })?;
    let beside = || own.parent().unwrap_or(Path::new("/")).join("wasmbox");
    let binary = options.wasmbox_binary.clone().unwrap_or_else(beside);
    if !binary.is_file() {
        return Err(PodError::NoBinary { path: binary });
    }
    Ok(Edit { binary, cache: None, delegation: (own, vec![delegation::ARGUMENT.to_owned()]) })
}

/// Where this binary is; after an upgrade, the new one: the kernel then adds a word to the name of the file that this process has.
fn own_path() -> io::Result<PathBuf> {
    let path = env::current_exe()?;
    let replaced = path.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    Ok(replaced.map_or(path.clone(), |path| PathBuf::from(OsStr::from_bytes(path))))
}
