//! Versions of containerd, which lie side by side in `target/tools`, and what each wants to be told.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use crate::workspace;

/// A version of containerd: each starts shims in a dialect of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Debian 12. A plain address, Task version 2.
    V1_6,
    /// Debian 13. A plain address, or JSON.
    V1_7,
    /// Debian's next. Task version 3.
    V2_1,
    /// From the Go module: `BootstrapParams`.
    V2_3,
}

impl Version {
    /// Where its programs are.
    pub fn directory(self) -> PathBuf {
        workspace::tool(match self {
            Version::V1_6 => "containerd/1.6",
            Version::V1_7 => "containerd/1.7",
            Version::V2_1 => "containerd/2.1",
            Version::V2_3 => "go/containerd-2.3",
        })
    }

    pub fn is_2(self) -> bool {
        matches!(self, Version::V2_1 | Version::V2_3)
    }

    /// The section of its configuration that has the runtimes.
    pub fn runtime_plugin(self) -> &'static str {
        if self.is_2() { "io.containerd.cri.v1.runtime" } else { "io.containerd.grpc.v1.cri" }
    }

    /// The form of its configuration.
    pub fn configuration_version(self) -> u8 {
        if self.is_2() { 3 } else { 2 }
    }

    /// Where it looks for network plugins, in its configuration.
    pub fn cni(self, directory: &str) -> String {
        match self {
            Version::V2_3 => format!("bin_dirs = ['{directory}']"),
            _ => format!("bin_dir = '{directory}'"),
        }
    }

    /// The configuration of one that keeps its files in `directory`, with options of the shim under test.
    pub(super) fn configuration(self, directory: &Path, options: &str) -> String {
        let directory = directory.display();
        let cni = workspace::tool("containerd/cni").display().to_string();
        let runtime = self.runtime_plugin();
        let mut text = format!(
            "version = {version}\nroot = '{directory}/root'\nstate = '/run/containerd'\n\
             [grpc]\naddress = '/run/containerd/containerd.sock'\n\
             [plugins.'io.containerd.internal.v1.opt']\npath = '{directory}/opt'\n\
             [plugins.'{runtime}']\nrestrict_oom_score_adj = true\n",
            version = self.configuration_version(),
        );
        // What a probe leaves behind may hold its output for ever.
        if self != Version::V1_6 {
            text += "drain_exec_sync_io_timeout = '3s'\n";
        }
        if !self.is_2() {
            text += "sandbox_image = 'docker.io/library/pause:test'\n";
        }
        // With options that are not runc's, containerd 2's client refuses user namespaces.
        let options = if options.is_empty() {
            String::new()
        } else {
            format!("[plugins.'{runtime}'.containerd.runtimes.wasmbox.options]\n{options}")
        };
        let _ = write!(
            text,
            "[plugins.'{runtime}'.cni]\n{bin}\nconf_dir = '{directory}/cni'\n\
             [plugins.'{runtime}'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
             [plugins.'{runtime}'.containerd.runtimes.wasmbox]\nruntime_type = 'io.containerd.wasmbox.v1'\n\
             pod_annotations = ['wasmbox.dev/*']\ncontainer_annotations = ['wasmbox.dev/*']\n\
             {options}\n",
            bin = self.cni(&cni),
        );
        if self.is_2() {
            text += "[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'docker.io/library/pause:test'\n";
        }
        text
    }
}

/// Makes a test of each function, for each version of containerd, or for each `from V1_7:` on. Each has a way of its own to start shims; all
/// else is the same.
#[macro_export]
macro_rules! on_each_version {
    (from V1_7: $($test:ident),* $(,)?) => {
        mod containerd_1_7 { $(#[test] fn $test() { super::$test($crate::Version::V1_7); })* }
        mod containerd_2_1 { $(#[test] fn $test() { super::$test($crate::Version::V2_1); })* }
        mod containerd_2_3 { $(#[test] #[ignore = "needs Go: make e2e"] fn $test() { super::$test($crate::Version::V2_3); })* }
    };
    ($($test:ident),* $(,)?) => {
        mod containerd_1_6 { $(#[test] fn $test() { super::$test($crate::Version::V1_6); })* }
        $crate::on_each_version!(from V1_7: $($test),*);
    };
}

/// Pods get addresses behind a bridge of the node's.
pub const NETWORK: &str = r#"{
  "cniVersion": "0.4.0",
  "name": "test",
  "plugins": [{
    "type": "bridge", "bridge": "cni0", "isGateway": true,
    "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}"#;
