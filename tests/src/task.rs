//! The shim's own service: what containerd says to it, for calls that neither `ctr` nor CRI make.

use std::{fs, path::Path};

use containerd_shim_protos::{
    protobuf::Message,
    ttrpc::{Client, Code, Error, Request},
};

use crate::{Containerd, Image, containerd::Version, patience::PATIENCE};

/// The names under which the service is known: to containerd 1.x, and to 2.x.
pub const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// The container `one`, which runs until it is killed, and its shim.
pub fn sleeping(version: Version) -> (Containerd, Shim) {
    let containerd = Containerd::start(version);
    let image = Image::busybox();
    containerd.import(&image);
    containerd.run(&["--detach", image.name(), "one", "/bin/sleep", "1000"]).ok();
    let shim = Shim::of(&containerd, "one");
    (containerd, shim)
}

/// Ends the container of [`sleeping`].
pub fn end(containerd: &Containerd) {
    containerd.ctr(&["task", "delete", "--force", "one"]).ok();
    containerd.ctr(&["container", "delete", "one"]).ok();
}

/// A connection to the shim that serves a container.
pub struct Shim(Client);

impl Shim {
    /// # Panics
    /// If there is none.
    pub fn of(containerd: &Containerd, container: &str) -> Shim {
        let state = Path::new("/run/containerd/io.containerd.runtime.v2.task").join(containerd.namespace());
        let bundle = containerd.node().path(state.join(container));
        let address = fs::read_to_string(bundle.join("address")).expect("the shim writes its address");
        let socket = address.strip_prefix("unix://").expect("the address of a socket");
        let socket = containerd.node().path(socket);
        Shim(Client::connect(&format!("unix://{}", socket.display())).expect("the shim listens"))
    }

    /// # Errors
    /// The shim's: its code and message.
    ///
    /// # Panics
    /// If there is no answer at all.
    pub fn call<A: Message>(&self, service: &str, method: &str, request: &impl Message) -> Result<A, (Code, String)> {
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload: request.write_to_bytes().expect("a message in memory"),
            timeout_nano: PATIENCE.as_nanos().try_into().expect("not that long"),
            ..Request::default()
        };
        match self.0.request(request) {
            Ok(response) => Ok(A::parse_from_bytes(&response.payload).expect("an answer of its type")),
            Err(Error::RpcStatus(status)) => Err((status.code(), status.message)),
            Err(other) => panic!("{service}/{method}: {other}"),
        }
    }
}
