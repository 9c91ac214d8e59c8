//! Images for containers, made offline by `examples/image.sh`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{temporary::TempDir, workspace};

/// An OCI archive.
pub struct Image {
    name: String,
    directory: TempDir,
}

/// What is to be in an image.
pub struct Recipe {
    name: String,
    flags: Vec<String>,
    directory: TempDir,
}

impl Image {
    /// `docker.io/library/NAME:test`.
    pub fn of(name: &str) -> Recipe {
        let directory = TempDir::new();
        fs::create_dir(directory.path().join("root")).expect("a new directory");
        Recipe { name: format!("docker.io/library/{name}:test"), flags: Vec::new(), directory }
    }

    /// With busybox, and nothing else.
    pub fn busybox() -> Image {
        let busybox = workspace::tool("containerd/busybox");
        let mut recipe = Image::of("busybox").file("bin/busybox", fs::read(busybox).expect("busybox"));
        for name in "cat dd echo env grep head id kill ls ps sh sleep stty tail touch true wget".split(' ') {
            recipe = recipe.link(&format!("bin/{name}"), "busybox");
        }
        recipe.env("PATH", "/bin").build()
    }

    /// What sandboxes run.
    ///
    /// # Panics
    /// If there is no C compiler.
    pub fn pause() -> Image {
        let recipe = Image::of("pause").entrypoint(&["/pause"]);
        let mut command = Command::new("cc");
        command.args(["-static", "-Os", "-s", "-o"]).arg(recipe.root().join("pause"));
        let compiled = command.arg(workspace::root().join("tests/containerd/pause.c")).status();
        let is_compiled = compiled.is_ok_and(|status| status.success());
        assert!(is_compiled, "cc cannot make a static program: install gcc and libc6-dev");
        recipe.build()
    }

    /// The image's reference.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn archive(&self) -> PathBuf {
        self.directory.path().join("image.tar")
    }
}

impl Recipe {
    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Adds a file that can be executed.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Recipe {
        use std::os::unix::fs::PermissionsExt;
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a new directory");
        fs::write(&path, content).expect("a new file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
        self
    }

    /// Adds a symlink.
    #[must_use]
    pub fn link(self, path: &str, target: impl AsRef<Path>) -> Recipe {
        std::os::unix::fs::symlink(target, self.root().join(path)).expect("a new link");
        self
    }

    #[must_use]
    pub fn entrypoint(self, words: &[&str]) -> Recipe {
        words.iter().fold(self, |recipe, word| recipe.flag("--entrypoint", word))
    }

    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Recipe {
        self.flag("--env", &format!("{name}={value}"))
    }

    #[must_use]
    pub fn user(self, user: &str) -> Recipe {
        self.flag("--user", user)
    }

    fn flag(mut self, name: &str, value: &str) -> Recipe {
        self.flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// # Panics
    /// With what the script says, if it fails.
    pub fn build(self) -> Image {
        let mut command = Command::new(workspace::root().join("examples/image.sh"));
        command.args(&self.flags).arg(&self.name).arg(self.root()).arg(self.directory.path().join("image.tar"));
        let output = command.output().expect("bash is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Image { name: self.name, directory: self.directory }
    }
}
