//! The first call of a module of 1 MB whose machine code is in the cache: its parts, each once in a process of its own, started many times.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use wasmtime::{Result, bail, ensure, error::Context};

use wasmbox::{
    artifacts::{ArtifactCache, ArtifactKey, mapping::Mapping},
    config::{Config, Settings},
    engine::tier::CodeMaker,
    sandbox::Program,
    store::{
        file::FunctionsDir,
        name::ModuleName,
        native::{Code, Native},
    },
};

use crate::{
    invocation::Sandboxes,
    meter::{Laps, Part},
    module,
};

/// What a first call does, in this order; then what it is compared with.
const NAMES: [&str; 10] = [
    "find the module's file; is it as it was?",
    "look up what was checked: the record's MAC, open, fstat",
    "map the image, wasmtime's deserialize",
    "link: instantiate_pre, the entry point",
    "the first invocation, with first touches of code and data",
    "a later invocation",
    "map the image with all its pages, alone",
    "where nothing is remembered: read the module",
    "where nothing is remembered: hash it",
    "where nothing is remembered: the image's MAC",
];
/// How many of these a first call consists of.
pub const FIRST_CALL: usize = 5;
/// More than the module has.
const LARGEST: u64 = 1 << 30;
/// After which files count as settled.
const SETTLED: Duration = Duration::from_millis(300);

/// Fills a cache below `home`, then has `starts` processes make a first call each. All parts.
///
/// # Errors
/// If one of them fails.
pub fn measure(home: &Path, starts: u32) -> Result<Vec<Part>> {
    let functions = home.join("functions");
    fs::write(functions.join("large.wasm"), module::large().map_err(wasmtime::Error::msg)?)?;
    {
        let sandboxes = Sandboxes::new(Config::new(Settings::default())?)?;
        let (cache, key) = (open(home)?, key(&sandboxes, home)?);
        let bytes = fs::read(functions.join("large.wasm"))?;
        cache.put(&key, &sandboxes.engines.plain().precompile_module(&bytes)?)?;
        thread::sleep(SETTLED);
        let file = FunctionsDir::new(functions).settled("large.wasm", LARGEST)?;
        let file = file.context("this file system does not tell whether a file has changed")?;
        let artifact = cache.get(&key).context("what was put into the cache is not there")?;
        cache.remember(&file, &key, &artifact);
    }
    let mut samples = NAMES.map(|_| Vec::new());
    for _ in 0..starts {
        let output = Command::new(std::env::current_exe()?).arg("cold").arg(home).output()?;
        ensure!(output.status.success(), "a start failed: {}", String::from_utf8_lossy(&output.stderr));
        let micros: [f64; NAMES.len()] = serde_json::from_slice(&output.stdout).context("a start's output")?;
        samples.iter_mut().zip(micros).for_each(|(samples, micros)| samples.push(micros));
    }
    NAMES.into_iter().zip(samples).map(|(name, samples)| Part::of(name, samples)).collect()
}

fn open(home: &Path) -> Result<ArtifactCache> {
    Ok(ArtifactCache::open(&home.join("cache"), LARGEST)?)
}

fn key(sandboxes: &Sandboxes, home: &Path) -> Result<ArtifactKey> {
    let bytes = fs::read(home.join("functions/large.wasm"))?;
    Ok(ArtifactKey::new(&bytes, sandboxes.engines.compatibility_key()))
}

/// One start: what each part takes, in microseconds.
///
/// # Errors
/// If there is no such cache below `home`, or the call fails.
pub fn one_start(home: &Path) -> Result<[f64; NAMES.len()]> {
    let sandboxes = Sandboxes::new(Config::new(Settings::default())?)?;
    let cache = open(home)?;
    // As in the box: on a thread that has done nothing yet.
    let measured = thread::scope(|scope| scope.spawn(|| first_call(&sandboxes, &cache, home)).join());
    measured.map_err(|_| wasmtime::format_err!("the measuring thread panicked"))?
}

fn first_call(sandboxes: &Sandboxes, cache: &ArtifactCache, home: &Path) -> Result<[f64; NAMES.len()]> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _context = runtime.enter();
    let compatibility = sandboxes.engines.compatibility_key();
    let directory = FunctionsDir::new(home.join("functions"));
    let name: ModuleName = "large".parse()?;

    let mut laps: Laps<{ NAMES.len() }> = Laps::new();
    let found = directory.find(&name)?;
    let file = directory.settled(&found.file, LARGEST)?.context("the module is being written")?;
    laps.lap(0);
    let artifact = cache.recall(&file, compatibility).context("nothing is known of the module")?;
    let image = artifact.file.try_clone()?;
    laps.lap(1);
    let code = Native::Cached(artifact).load(&sandboxes.engines, CodeMaker::Optimiser)?;
    laps.lap(2);
    let Code::Module(module) = &code else { bail!("the module is none") };
    let program: Program = sandboxes.toolchain.module(module)?;
    laps.lap(3);
    sandboxes.invoke(&program, &mut Laps::new())?;
    laps.lap(4);
    sandboxes.invoke(&program, &mut Laps::new())?;
    laps.lap(5);
    drop(Mapping::new(&image, image.metadata()?.len())?);
    laps.lap(6);
    let (bytes, _) = directory.read(&found.file, LARGEST)?;
    laps.lap(7);
    let key = ArtifactKey::new(&bytes, compatibility);
    laps.lap(8);
    cache.get(&key).context("the image is not in the cache")?;
    laps.lap(9);
    Ok(laps.micros())
}
