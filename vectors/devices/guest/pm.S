    .code16
    .section .text16,"ax"
    .globl start16
start16:
    cli
    lgdtl %cs:gdtr16
    movl %cr0,%eax
    orl $1,%eax
    movl %eax,%cr0
    ljmpl $8,$start32
    .align 8
gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
    .globl gdtr16
gdtr16: .word 23
    .long gdt
    .code32
start32:
    movw $16,%ax
    movw %ax,%ds; movw %ax,%es; movw %ax,%ss
    movl $0x80000,%esp
    call cmain
1:  pause
    jmp 1b
    .section .reset,"ax"
    .code16
    jmp start16
    .byte 0
