//! A command of WASI 0.3: its first argument says what it does.

use wasip3::{
    cli::{environment, exit, stderr, stdin, stdout},
    clocks::monotonic_clock::wait_for,
    exports::cli::run::Guest,
    wit_bindgen::{StreamWriter, spawn_local},
    wit_stream,
};

struct Command;

wasip3::cli::command::export!(Command);

impl Guest for Command {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let word = arguments.get(1).map(String::as_str).unwrap_or_default();
        let number = || arguments.get(2).and_then(|number| number.parse::<u64>().ok()).expect("a number");
        match word {
            "echo" => {
                let (mut from, _) = stdin::read_via_stream();
                let (mut to, output) = wit_stream::new();
                let done = stdout::write_via_stream(output);
                loop {
                    let (_, bytes) = from.read(Vec::with_capacity(8 << 10)).await;
                    if bytes.is_empty() || !to.write_all(bytes).await.is_empty() {
                        break;
                    }
                }
                drop(to);
                done.await.map_err(drop)
            }
            "write" => {
                let bytes = number();
                print(async move |mut to| {
                    for start in (0..bytes).step_by(64 << 10) {
                        let length = usize::try_from((bytes - start).min(64 << 10)).expect("small");
                        if !to.write_all(vec![b'x'; length]).await.is_empty() {
                            return;
                        }
                    }
                })
                .await
            }
            // It does not look at what becomes of it.
            "careless" => {
                let _ = print(async move |mut to| {
                    for _ in 0..1000 {
                        let _ = to.write_all(vec![b'x'; 64 << 10]).await;
                    }
                })
                .await;
                Ok(())
            }
            "environment" => {
                let text: String =
                    environment::get_environment().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
                print(async move |mut to| drop(to.write_all(text.into_bytes()).await)).await
            }
            "exit" => {
                exit::exit_with_code(u8::try_from(number()).expect("a code"));
                Ok(())
            }
            "error" => {
                let (mut to, output) = wit_stream::new();
                let done = stderr::write_via_stream(output);
                let _ = to.write_all(b"last words\n".to_vec()).await;
                drop(to);
                let _ = done.await;
                Err(())
            }
            "loop" => loop {
                std::hint::black_box(());
            },
            // Returns before a task of its own has ended.
            "leaves" => {
                spawn_local(wait_for(86_400_000_000_000));
                print(async move |mut to| drop(to.write_all(b"left".to_vec()).await)).await
            }
            other => panic!("{other}?"),
        }
    }
}

async fn print(write: impl AsyncFnOnce(StreamWriter<u8>) + 'static) -> Result<(), ()> {
    let (to, output) = wit_stream::new();
    let done = stdout::write_via_stream(output);
    write(to).await;
    done.await.map_err(drop)
}
