//! A guest that tells where its memory ends and how far its other vCPUs have counted.

/// 64 bits. vCPU 0 looks where its memory ends, a MiB at a time, and says that and three counters in
/// hexadecimal, a line each time; every other vCPU counts at 0x10000 + 4 * its number.
pub const COUNTERS: &[u8] = &[
    0x85, 0xdb, //                         test ebx, ebx
    0x74, 0x09, //                         jz report
    0xff, 0x04, 0x9d, 0, 0, 1, 0, // count: inc dword [rbx*4 + 0x10000]
    0xeb, 0xf7, //                         jmp count
    0xbc, 0, 0, 2, 0, //          report:  mov esp, 0x20000
    0x66, 0xba, 0xf8, 0x03, //             mov dx, 0x3f8
    0xbf, 0, 0, 0x10, 0, //       again:   mov edi, 0x100000
    0x89, 0x3f, //                probe:   mov [rdi], edi
    0x39, 0x3f, //                         cmp [rdi], edi
    0x75, 0x08, //                         jne ended
    0x81, 0xc7, 0, 0, 0x10, 0, //          add edi, 0x100000
    0xeb, 0xf2, //                         jmp probe
    0x89, 0xf8, //                ended:   mov eax, edi
    0xe8, 0x20, 0, 0, 0, //                call hex
    0xb9, 1, 0, 0, 0, //                   mov ecx, 1
    0xb0, 0x20, //                each:    mov al, ' '
    0xee, //                               out dx, al
    0x8b, 0x04, 0x8d, 0, 0, 1, 0, //       mov eax, [rcx*4 + 0x10000]
    0xe8, 0x0c, 0, 0, 0, //                call hex
    0xff, 0xc1, //                         inc ecx
    0x83, 0xf9, 0x04, //                   cmp ecx, 4
    0x72, 0xea, //                         jb each
    0xb0, 0x0a, //                         mov al, 10
    0xee, //                               out dx, al
    0xeb, 0xc6, //                         jmp again
    0xbd, 8, 0, 0, 0, //          hex:     mov ebp, 8
    0xc1, 0xc0, 0x04, //          digit:   rol eax, 4
    0x89, 0xc6, //                         mov esi, eax
    0x83, 0xe0, 0x0f, //                   and eax, 15
    0x04, 0x30, //                         add al, '0'
    0x3c, 0x39, //                         cmp al, '9'
    0x76, 0x02, //                         jbe put
    0x04, 0x27, //                         add al, 'a' - '9' - 1
    0xee, //                      put:     out dx, al
    0x89, 0xf0, //                         mov eax, esi
    0xff, 0xcd, //                         dec ebp
    0x75, 0xe9, //                         jnz digit
    0xc3, //                               ret
];

/// What the counting guest says.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Where its memory ends.
    pub memory_bytes: u64,
    /// Of vCPUs 1, 2 and 3.
    pub counters: [u32; 3],
}

/// Reads a line; `None` for one that was begun, or that lost bytes.
pub fn parse(line: &str) -> Option<Line> {
    let mut words = line
        .split(' ')
        .map(|word| if word.len() == 8 { u32::from_str_radix(word, 16).ok() } else { None });
    let memory_bytes = words.next()??.into();
    let counters = [words.next()??, words.next()??, words.next()??];
    words.next().is_none().then_some(Line { memory_bytes, counters })
}
