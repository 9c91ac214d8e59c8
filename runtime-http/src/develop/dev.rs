//! `wasmbox dev`: builds, serves, and builds again what changes; shows what compilers, functions and calls have to say.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsString,
    future,
    io::{self, Write},
    path::PathBuf,
    process::{ExitCode, Output},
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{
    build,
    local_box::LocalBox,
    palette::Palette,
    project::{Buildable, Project},
    steps::{Interrupts, Step},
    told::{Remark, Told},
    watch::{Changes, Watched},
};

#[derive(Debug, clap::Args)]
pub struct DevArgs {
    /// The project: a directory with `functions` in it
    #[arg(default_value = ".", value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub directory: PathBuf,
    /// Address of the function port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the functions; 0 takes a free one
    #[arg(long, default_value_t = 8095)]
    pub port: u16,
    /// Port of health and metrics on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 8086)]
    pub admin_port: u16,
    /// Whether output is coloured
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: clap::ColorChoice,
    /// Further flags of `serve`: -- --memory-limit 1Gi
    #[arg(last = true, value_name = "FLAGS")]
    pub serve: Vec<OsString>,
}

/// What changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// Sources of a function.
    Sources(String),
    /// The functions directory: settings, and modules that are not built.
    Functions,
}

/// What is to be done, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    Build(Buildable),
    Check,
}

/// What is being done.
struct Running {
    task: Task,
    step: Step,
    started: Instant,
}

struct Dev {
    palette: Palette,
    project: Project,
    /// What was built last, so that a change of the settings builds anew.
    known: BTreeMap<String, Buildable>,
    /// Whose last build failed.
    failed: BTreeSet<String>,
    /// What was said about settings, and by the check.
    told_of_settings: Told,
    told_by_check: Told,
    waiting: VecDeque<Task>,
    running: Option<Running>,
    changes: Changes<Subject>,
    /// Something is not there that should be watched: when it is looked for again.
    look_again: Option<Instant>,
}

/// How often what cannot be watched yet is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Until Ctrl-C or SIGTERM, which is a success.
///
/// # Errors
/// If it is no project, or the box does not start or ends by itself.
pub fn dev(arguments: &DevArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupts = Interrupts::new()?;
        let directory = arguments.directory.canonicalize();
        let directory = directory.with_context(|| arguments.directory.display().to_string())?;
        let project = Project::read(&directory)?;
        let mut flags: Vec<OsString> = vec!["--host".into(), (&arguments.host).into(), "--admin-host=127.0.0.1".into()];
        flags.push(format!("--port={}", arguments.port).into());
        flags.push(format!("--admin-port={}", arguments.admin_port).into());
        flags.push("--qp-host=none".into());
        flags.extend(arguments.serve.iter().cloned());
        let functions = project.functions();
        let mut local = tokio::select! {
            started = LocalBox::start(&functions, &flags) => started?,
            _ = interrupts.next() => return Ok(ExitCode::SUCCESS),
        };
        let mut dev = Dev {
            palette: Palette::new(arguments.color, &io::stdout()),
            project,
            known: BTreeMap::new(),
            failed: BTreeSet::new(),
            told_of_settings: Told::default(),
            told_by_check: Told::default(),
            waiting: VecDeque::new(),
            running: None,
            changes: Changes::default(),
            look_again: None,
        };
        let worked = dev.work(&mut local, &mut interrupts).await;
        if let Some(running) = dev.running.take() {
            running.step.stop().await;
        }
        let ended = local.end().await;
        worked?;
        ended?;
        Ok(ExitCode::SUCCESS)
    })
}

impl Dev {
    /// Until a signal.
    async fn work(&mut self, local: &mut LocalBox, interrupts: &mut Interrupts) -> anyhow::Result<()> {
        self.say(&format!("serving {}", self.palette.strong(format_args!("http://{}", local.address))));
        for name in self.project.names()? {
            let is_built = self.project.buildable.iter().any(|buildable| buildable.name == name);
            let until_then = match (is_built, self.project.has_module(&name)) {
                (false, _) => "",
                (true, false) => "  being built; answers 404 until then",
                (true, true) => "  being built; the last good build serves until then",
            };
            self.say(&format!("  http://{}/{name}{}", local.address, self.palette.faint(until_then)));
        }
        self.read_project();
        self.waiting.push_back(Task::Check);
        loop {
            self.start_waiting();
            tokio::select! {
                _ = interrupts.next() => return Ok(()),
                line = local.line() => {
                    if let Some(text) = line?.shown(self.palette) {
                        self.say(&text);
                    }
                }
                ended = ended(&mut self.running) => self.finish(ended),
                changed = self.changes.next() => self.changed(&changed),
                () = at(self.look_again) => self.read_project(),
            }
        }
    }

    fn changed(&mut self, changed: &BTreeSet<Subject>) {
        self.read_project();
        for subject in changed {
            match subject {
                Subject::Sources(name) => {
                    let buildable = self.project.buildable.iter().find(|buildable| buildable.name == *name);
                    if let Some(buildable) = buildable.cloned() {
                        self.enqueue(Task::Build(buildable));
                    }
                }
                Subject::Functions => self.enqueue(Task::Check),
            }
        }
    }

    /// Looks at the settings again, watches what they name, and builds what they say anew.
    fn read_project(&mut self) {
        match Project::read(&self.project.directory) {
            Ok(project) => self.project = project,
            Err(error) => return self.complain(&error),
        }
        let broken = std::mem::take(&mut self.project.broken).into_iter();
        let broken = broken.map(|broken| Remark { file: broken.path, text: broken.error.to_string() }).collect();
        for text in self.told_of_settings.news(broken) {
            self.say(&self.palette.bad(text));
        }
        let directory = &self.project.directory;
        let mut watched = vec![Watched { path: self.project.functions(), subject: Subject::Functions }];
        for Buildable { name, settings } in &self.project.buildable {
            let paths = settings.watch.iter().map(|path| directory.join(path));
            watched.extend(paths.map(|path| Watched { path, subject: Subject::Sources(name.clone()) }));
        }
        match self.changes.watch(watched) {
            Ok(()) => self.look_again = None,
            Err(error) => {
                // Said once, not twice a second.
                if self.look_again.replace(Instant::now() + LOOK_AGAIN).is_none() {
                    self.complain(&error);
                }
            }
        }
        // What is built no more, or has settings that cannot be used, is built when it is there again.
        self.known.retain(|name, _| self.project.buildable.iter().any(|buildable| buildable.name == *name));
        for buildable in self.project.buildable.clone() {
            if self.known.get(&buildable.name) != Some(&buildable) {
                self.enqueue(Task::Build(buildable));
            }
        }
    }

    /// Once, whatever changes until it is begun.
    fn enqueue(&mut self, task: Task) {
        if let Task::Build(buildable) = &task {
            self.known.insert(buildable.name.clone(), buildable.clone());
            let is_of_it = |waiting: &Task| matches!(waiting, Task::Build(other) if other.name == buildable.name);
            self.waiting.retain(|waiting| !is_of_it(waiting));
        }
        if !self.waiting.contains(&task) {
            self.waiting.push_back(task);
        }
    }

    fn start_waiting(&mut self) {
        while self.running.is_none() {
            let Some(task) = self.waiting.pop_front() else { return };
            let step = match &task {
                Task::Build(buildable) => {
                    self.say(&build::announcement(buildable, self.palette));
                    build::start(&self.project, buildable).map_err(|failure| self.failed(buildable, &failure))
                }
                Task::Check => build::start_check(&self.project).map_err(|error| self.complain(&error)),
            };
            if let Ok(step) = step {
                self.running = Some(Running { task, step, started: Instant::now() });
            }
        }
    }

    fn finish(&mut self, ended: io::Result<Output>) {
        let Some(Running { task, started, .. }) = self.running.take() else { return };
        match task {
            Task::Build(buildable) => match build::finish(&self.project, &buildable, ended) {
                // If the module came out different, that is a change, which is checked.
                Ok(()) => self.built(&buildable, started.elapsed()),
                Err(failure) => self.failed(&buildable, &failure),
            },
            Task::Check => match ended {
                Ok(checked) => {
                    for text in self.told_by_check.news(build::findings(&checked, &self.project)) {
                        self.say(&build::painted(&text, checked.status, self.palette));
                    }
                }
                Err(error) => self.complain(&error),
            },
        }
    }

    fn built(&mut self, buildable: &Buildable, took: Duration) {
        let mut text = build::success(buildable, took, self.palette);
        if self.failed.remove(&buildable.name) {
            text += &self.palette.good("; the new build serves");
        }
        self.say(&text);
    }

    /// Says also what its callers get meanwhile.
    fn failed(&mut self, buildable: &Buildable, failure: &build::Failure) {
        let name = &buildable.name;
        let meanwhile = if self.project.has_module(name) {
            "the last good build still serves"
        } else {
            "it answers 404 until a build succeeds"
        };
        self.failed.insert(name.clone());
        self.say(&self.palette.bad(format_args!("{failure}; {meanwhile}")));
    }

    fn complain(&self, error: &dyn std::error::Error) {
        self.say(&self.palette.bad(error));
    }

    /// Whoever reads it may have left: that is no reason to end.
    fn say(&self, text: &str) {
        if !text.is_empty() {
            let mut output = io::stdout().lock();
            let _ = writeln!(output, "{text}").and_then(|()| output.flush());
        }
    }
}

/// Waits until then; for ever, if it is never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => future::pending().await,
    }
}

/// Waits for the end of what runs; for ever, if nothing does.
async fn ended(running: &mut Option<Running>) -> io::Result<Output> {
    match running {
        Some(running) => running.step.ended().await,
        None => future::pending().await,
    }
}
