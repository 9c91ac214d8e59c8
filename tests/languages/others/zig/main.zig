// Greets its first argument, or the world, and says how much came in the request's body.
const std = @import("std");

pub fn main() !void {
    const allocator = std.heap.wasm_allocator;
    const arguments = try std.process.argsAlloc(allocator);
    const name = if (arguments.len > 1) arguments[1] else "world";
    if (std.mem.eql(u8, name, "fail")) {
        std.debug.print("out of luck\n", .{});
        std.process.exit(3);
    }
    const body = try std.io.getStdIn().readToEndAlloc(allocator, 64 << 20);
    try std.io.getStdOut().writer().print("Hello, {s}! You sent {d} bytes.\n", .{ name, body.len });
}
