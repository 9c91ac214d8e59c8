use super::*;
use crate::{
    boot,
    config::{CacheDir, Config, Settings},
};

/// A store over an empty directory.
struct TestStore {
    store: Arc<ModuleStore>,
    directory: std::path::PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl TestStore {
    fn new(test: &str) -> TestStore {
        let directory = std::env::temp_dir().join(format!("wasmbox-store-{test}-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let mut settings = Settings::default();
        settings.places.functions_dir = Some(directory.clone());
        settings.places.cache_dir = Some(CacheDir::None);
        settings.capacity.max_invocations = Some(1);
        settings.cpu.enable_cgroups = Some(crate::cgroup::Enable::False);
        let config = Config::new(settings).unwrap();
        let metrics = Arc::new(Metrics::new());
        let wasm = boot::Wasm::new(&config, &metrics).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let functions = boot::functions_dir(&config).unwrap();
        let cgroups = boot::cgroups(&config, &metrics).unwrap();
        let threads = StoreThreads {
            runtime: runtime.handle().clone(),
            file_access: Arc::new(cgroups.leave()),
            outbound: boot::outbound(&config, &boot::roots(&config).unwrap(), 1024, &cgroups, &metrics).unwrap(),
            keyvalue: None,
        };
        let store = boot::store(&config, functions, wasm.compiler, 1024, threads, metrics).unwrap();
        TestStore { store, directory, runtime }
    }

    fn get(&self, name: &str) -> Result<Arc<Function>, StoreError> {
        let name = name.parse().unwrap();
        self.runtime.block_on(self.store.get(&name, Instant::now() + Duration::from_secs(30)))
    }

    fn states(&self) -> Vec<&'static str> {
        self.store.listing().into_iter().map(|listed| listed.state).collect()
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

#[test]
fn loading_that_panics_has_failed_and_is_not_loading_for_ever() {
    let test = TestStore::new("panic");
    let version = FileVersion {
        file: "f".into(),
        module: crate::artifacts::file_identity::FileIdentity::numbered(1),
        settings: None,
    };
    let (begun, (sender, result)) = (Instant::now(), watch::channel(None));
    let waiting = Waiting { result, until: Instant::now() };
    let ticket = test.store.cache().start(&version, waiting.clone(), Instant::now());
    let loading = Loading::new(&test.store, ticket, sender);
    let task = test.runtime.spawn(async move {
        let _loading = loading;
        panic!("loading panics");
    });
    assert!(test.runtime.block_on(task).unwrap_err().is_panic());
    assert_eq!(test.states(), ["failed"]);
    let waited = test.runtime.block_on(wait_for(waiting, Instant::now(), "f"));
    assert!(matches!(waited, Err(StoreError::Load(error)) if matches!(*error, LoadError::Aborted { .. })));
    let (name, later) = ("f".parse().unwrap(), Instant::now() + Duration::from_secs(2));
    assert!(matches!(test.store.cache().look_up(&name, &version, begun), LookUp::Failed(_)));
    assert!(matches!(test.store.cache().look_up(&name, &version, later), LookUp::Missing));
}

#[test]
fn what_is_gone_is_let_go_of() {
    let test = TestStore::new("gone");
    assert!(
        matches!(test.get("f"), Err(StoreError::Load(error)) if matches!(*error, LoadError::File(FileError::NotFound { .. })))
    );
    std::fs::write(test.directory.join("f.wasm"), "no module").unwrap();
    assert!(matches!(test.get("f"), Err(StoreError::Load(error)) if matches!(*error, LoadError::Compile { .. })));
    assert_eq!(test.states(), ["failed"]);
    std::fs::remove_file(test.directory.join("f.wasm")).unwrap();
    assert!(test.get("f").is_err());
    assert!(test.states().is_empty());
}
