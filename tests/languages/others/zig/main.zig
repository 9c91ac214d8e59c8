// Greets its first argument, or the world, and says how much came in the request's body.
const std = @import("std");

pub fn main(init: std.process.Init) !void {
    const arguments = try init.minimal.args.toSlice(init.arena.allocator());
    const name = if (arguments.len > 1) arguments[1] else "world";
    if (std.mem.eql(u8, name, "fail")) {
        std.debug.print("out of luck\n", .{});
        std.process.exit(3);
    }
    var input: [4096]u8 = undefined;
    var stdin = std.Io.File.stdin().reader(init.io, &input);
    const bytes = try stdin.interface.discardRemaining();
    var output: [4096]u8 = undefined;
    var stdout = std.Io.File.stdout().writer(init.io, &output);
    try stdout.interface.print("Hello, {s}! You sent {d} bytes.\n", .{ name, bytes });
    try stdout.interface.flush();
}
