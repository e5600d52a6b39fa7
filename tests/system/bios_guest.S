/*
 * A disk that SeaBIOS boots: 16-bit code that does what a letter on COM1 asks for and says so there. The same under every
 * emulator, so that their screens can be compared.
 *
 *   0 text in all colours   1 mode 12h, four planes   2 mode 13h   3 VBE 101h through the 64 KiB window   4 VBE 142h in linear memory
 *   k, f, 9, t, w: reset by keyboard controller, port 92h, port CF9h, triple fault, the BIOS's own warm start
 *
 * CMOS byte 60h counts the boots; a first boot finds 0 there.
 */
        .code16
        .text
        .globl _start
#define COM1 0x3f8
#define BOOTS 0x60
#define SECTORS 7
#define BUFFER 0x9000

_start: cli
        cld
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x7c00, %sp
        sti
        mov $(0x200 | SECTORS), %ax
        mov $2, %cx
        xor %dh, %dh
        mov $0x7e00, %bx
        int $0x13
        jc stop
        ljmp $0, $main
stop:   hlt
        jmp stop
        .org 510
        .word 0xaa55

main:   mov $BOOTS, %al
        out %al, $0x70
        in $0x71, %al
        inc %al
        mov %al, %bl
        mov $BOOTS, %al
        out %al, $0x70
        mov %bl, %al
        out %al, $0x71
        add $'0', %al
        mov %al, boots
        mov $hello, %si
        call say

next:   call listen
        mov $commands, %si
1:      mov (%si), %bl
        test %bl, %bl
        jz next
        add $3, %si
        cmp %bl, %al
        jne 1b
        push %ax
        call *-2(%si)
        pop %ax
        mov %al, drawn
        xor %ax, %ax
        mov %ax, %es
        cld
        mov $done, %si
        call say
        jmp next

/* The serial port. */
listen: mov $(COM1 + 5), %dx
1:      in %dx, %al
        test $1, %al
        jz 1b
        mov $COM1, %dx
        in %dx, %al
        ret

say:    lodsb
        test %al, %al
        jz 2f
        mov %al, %ah
        mov $(COM1 + 5), %dx
1:      in %dx, %al
        test $0x20, %al
        jz 1b
        mov %ah, %al
        mov $COM1, %dx
        out %al, %dx
        jmp say
2:      ret

/* 80x25: every character in every colour that does not blink, without a cursor. */
text:   mov $3, %ax
        int $0x10
        mov $1, %ah
        mov $0x2000, %cx
        int $0x10
        mov $0xb800, %ax
        mov %ax, %es
        xor %di, %di
        xor %ax, %ax
1:      and $0x7fff, %ax
        stosw
        add $0x0101, %ax
        cmp $4000, %di
        jb 1b
        ret

/* Index and value in %al, %ah; the two controllers of planes. */
graphics:
        mov $0x3ce, %dx
        out %ax, %dx
        ret

planes: mov $0x12, %ax
        int $0x10
        mov $0xa000, %ax
        mov %ax, %es
        mov $0x0f01, %ax        /* set/reset in all planes: the colour is register 0 */
        call graphics
        xor %bx, %bx
        xor %di, %di
1:      mov %bh, %ah            /* sixteen bars of 30 lines */
        xor %al, %al
        call graphics
        mov $2400, %cx
        rep stosb
        inc %bh
        cmp $16, %bh
        jb 1b
        mov $0x0f00, %ax        /* a field inverted: XOR with the latches */
        call graphics
        mov $0x1803, %ax
        call graphics
        mov $(100 * 80 + 10), %di
        mov $100, %bx
1:      mov $20, %cx
2:      orb $0xff, %es:(%di)
        inc %di
        loop 2b
        add $60, %di
        dec %bx
        jnz 1b
        mov $0x0003, %ax        /* a diagonal, dot by dot: write mode 2 under the bit mask */
        call graphics
        mov $0x0001, %ax
        call graphics
        mov $0x0205, %ax
        call graphics
        xor %bx, %bx
1:      imul $80, %bx, %di
        mov %bx, %ax
        shr $3, %ax
        add %ax, %di
        mov %bl, %cl
        and $7, %cl
        mov $0x8008, %ax
        shr %cl, %ah
        call graphics
        mov %bl, %al
        not %al
        xchg %al, %es:(%di)
        inc %bx
        cmp $400, %bx
        jb 1b
        mov $0xff08, %ax
        call graphics
        mov $0x0105, %ax        /* latches copied: the upper left over the lower right */
        call graphics
        push %ds
        push %es
        pop %ds
        xor %si, %si
        mov $(250 * 80 + 40), %di
        mov $200, %bx
1:      mov $40, %cx
        rep movsb
        add $40, %si
        add $40, %di
        dec %bx
        jnz 1b
        pop %ds
        mov $0x0005, %ax
        call graphics
        mov $0x0001, %ax
        jmp graphics

/* A palette by REP OUTSB, lines made in memory and moved forwards and backwards. */
palette:
        mov $BUFFER, %di
        xor %cx, %cx
1:      mov %cl, %al
        shr $2, %al
        stosb
        mov %cl, %al
        and $63, %al
        stosb
        not %al
        and $63, %al
        stosb
        inc %cl
        jnz 1b
        mov $0x3c8, %dx
        xor %al, %al
        out %al, %dx
        inc %dx
        mov $BUFFER, %si
        mov $768, %cx
        rep outsb
        ret

bytes:  mov $0x13, %ax
        int $0x10
        call palette
        xor %bx, %bx
1:      xor %ax, %ax
        mov %ax, %es
        mov $BUFFER, %di
        xor %cx, %cx
2:      mov %cx, %ax
        xor %bx, %ax
        stosb
        inc %cx
        cmp $320, %cx
        jb 2b
        mov $0xa000, %ax
        mov %ax, %es
        imul $320, %bx, %di
        mov $BUFFER, %si
        mov $160, %cx
        test $1, %bl
        jz 3f
        std
        add $318, %si
        add $318, %di
3:      rep movsw
        cld
        inc %bx
        cmp $200, %bx
        jb 1b
        ret

window: mov $0x4f02, %ax
        mov $0x101, %bx
        int $0x10
        call palette
        xor %dx, %dx
1:      mov $0x4f05, %ax
        xor %bx, %bx
        push %dx
        int $0x10
        pop %dx
        mov $0xa000, %ax
        mov %ax, %es
        xor %edi, %edi
2:      mov %edi, %eax          /* 256 bytes at a time */
        shr $8, %eax
        add %dl, %al
        imul $0x01010101, %eax, %eax
        mov $64, %ecx
        rep stosl
        test %di, %di
        jnz 2b
        inc %dx
        cmp $4, %dx
        jbe 1b
        ret

linear: mov $0x4f01, %ax
        mov $0x142, %cx
        mov $BUFFER, %di
        int $0x10
        mov $0x4f02, %ax
        mov $0x4142, %bx
        int $0x10
        cli
        lgdt gdt
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        mov $8, %bx
        mov %bx, %fs            /* keeps its limit of 4 GiB */
        and $0xfe, %al
        mov %eax, %cr0
        xor %ax, %ax
        mov %ax, %fs
        sti
        mov BUFFER + 40, %edi
        xor %ebx, %ebx
1:      xor %ecx, %ecx
2:      mov %ebx, %eax
        shl $8, %eax
        add %ecx, %eax
        imul $0x1357, %eax, %eax
        mov %eax, %fs:(%edi)
        add $4, %edi
        inc %ecx
        cmp $640, %ecx
        jb 2b
        inc %ebx
        cmp $480, %ebx
        jb 1b
        ret

/* Resets. */
keyboard:
        in $0x64, %al
        test $2, %al
        jnz keyboard
        mov $0xfe, %al
        out %al, $0x64
        jmp stop

fast:   in $0x92, %al
        or $1, %al
        out %al, $0x92
        jmp stop

chipset:
        mov $0xcf9, %dx
        mov $2, %al
        out %al, %dx
        mov $6, %al
        out %al, %dx
        jmp stop

triple: lidt nothing
        int3
        jmp stop

warm:   movw $0x1234, 0x472
        ljmp $0xffff, $0

#define COMMAND(letter, what) .byte letter; .word what
commands:
        COMMAND('0', text)
        COMMAND('1', planes)
        COMMAND('2', bytes)
        COMMAND('3', window)
        COMMAND('4', linear)
        COMMAND('k', keyboard)
        COMMAND('f', fast)
        COMMAND('9', chipset)
        COMMAND('t', triple)
        COMMAND('w', warm)
        .byte 0
hello:  .ascii "bios-guest: boot "
boots:  .asciz "?\r\n"
done:   .ascii "bios-guest: done "
drawn:  .asciz "?\r\n"
        .align 4
nothing:
        .word 0
        .long 0
        .align 8
table:  .quad 0
        .quad 0x00cf92000000ffff
gdt:    .word 15
        .long table
        .org (SECTORS + 1) * 512
