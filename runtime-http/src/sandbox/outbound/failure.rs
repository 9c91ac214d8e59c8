//! What went wrong with a request, as `wasi:http` names it.

use std::{error::Error as _, io};

use wasmtime_wasi_http::Error;

use crate::tls::TlsFailure;

impl From<TlsFailure> for Error {
    fn from(failure: TlsFailure) -> Error {
        match failure {
            TlsFailure::Name | TlsFailure::Certificate(_) => Error::TlsCertificateError,
            TlsFailure::Tls(rustls::Error::AlertReceived(alert)) => {
                Error::TlsAlertReceived { alert_id: Some(alert.into()), alert_message: Some(format!("{alert:?}")) }
            }
            TlsFailure::Tls(_) => Error::TlsProtocolError,
            TlsFailure::Io(error) => of_io(&error),
        }
    }
}

/// Of a socket, connected or not.
pub fn of_io(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationIpUnroutable,
        // A policy of the machine's, or of the box's own.
        io::ErrorKind::PermissionDenied => Error::DestinationIpProhibited,
        io::ErrorKind::AddrNotAvailable => Error::DestinationUnavailable,
        _ => Error::ConnectionTerminated,
    }
}

/// While the response's head was awaited.
pub fn of_head(error: &hyper::Error) -> Error {
    if error.is_parse_too_large() {
        return Error::HttpResponseHeaderSectionSize(None);
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Error::ConnectionTerminated;
    }
    lost(error).unwrap_or(Error::HttpProtocolError)
}

/// While its body was read.
pub fn of_body(error: &hyper::Error) -> Error {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Error::HttpResponseIncomplete;
    }
    lost(error).unwrap_or(Error::HttpProtocolError)
}

/// Whether it was the connection's end, by whichever layer it is told.
fn lost(error: &hyper::Error) -> Option<Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return Some(of_io(error));
        }
        source = cause.source();
    }
    None
}
