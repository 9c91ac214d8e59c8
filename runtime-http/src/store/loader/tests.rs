use std::io;

use super::*;
use crate::confined::CompilerError;

#[test]
fn only_what_the_content_decides_is_remembered() {
    let compile = |source: CompileError| LoadError::Compile { file: "f".into(), source };
    let compiler = |error: CompilerError| compile(error.into());
    let io = || io::Error::from(io::ErrorKind::OutOfMemory);
    for (error, remembered) in [
        (compiler(CompilerError::Invalid("a".into())), Remembered::UntilItChanges),
        (compiler(CompilerError::TooLong { time: std::time::Duration::ZERO }), Remembered::UntilItChanges),
        (compile(CompileError::UnknownFormat), Remembered::UntilItChanges),
        (compile(CompileError::Node("a".into())), Remembered::UntilItChanges),
        (compiler(CompilerError::Killed), Remembered::ForAWhile),
        (compiler(CompilerError::Stopped), Remembered::ForAWhile),
        (compiler(CompilerError::Unconfined("a".into())), Remembered::ForAWhile),
        (compiler(CompilerError::Io { step: "a", source: io() }), Remembered::ForAWhile),
        (compile(CompileError::Memory(io())), Remembered::ForAWhile),
        (compile(CompileError::Unloadable("a".into())), Remembered::ForAWhile),
        (FileError::Io { file: "f".into(), source: io() }.into(), Remembered::ForAWhile),
        (LoadError::Aborted { file: "f".into() }, Remembered::ForAWhile),
        (FileError::Unsettled { file: "f".into() }.into(), Remembered::NotAtAll),
    ] {
        assert_eq!(error.remembered(), remembered, "{error:?}");
    }
}
