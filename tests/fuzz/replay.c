/* Runs the inputs that are named as arguments through the fuzz target: for compilers without libFuzzer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#undef malloc /* the failing ones are the core's */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int count, char **names)
{
    static uint8_t bytes[1 << 20];
    for (int n = 1; n < count; n++) {
        FILE *file = fopen(names[n], "rb");
        if (!file) {
            perror(names[n]);
            return EXIT_FAILURE;
        }
        size_t size = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        uint8_t *exact = malloc(size ? size : 1); /* so that a look beyond the end is seen */
        if (!exact) return EXIT_FAILURE;
        for (size_t at = 0; at < size; at++) exact[at] = bytes[at];
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    printf("%d inputs\n", count - 1);
    return EXIT_SUCCESS;
}
